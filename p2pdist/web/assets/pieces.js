// The map of pieces: one cell a piece, or several pieces where there are more than cells.
// Layers come as bitfields, piece 0 in the high bit of the first byte: have, in flight, writing,
// then how many connected peers have each piece, binary, the lowest bit first.

import { colour, fit, number, onTheme, plural, put, set } from "./words.js";

const LEAST = 3, MOST = 16;

function rgb(text) {
  const found = text.match(/^#(..)(..)(..)$/);
  return found ? found.slice(1).map((part) => parseInt(part, 16)) : [128, 128, 128];
}

export class Pieces {
  constructor() {
    const find = (id) => document.getElementById(id);
    [this.map, this.strip, this.text, this.count, this.rare] = ["map", "strip", "map-text", "pieces-count", "t-rare"].map(find);
    this.pieces = 0;
    this.state = new Uint8Array(0);
    this.copies = new Uint8Array(0);
    this.at = null;
    this.small = document.createElement("canvas");
    this.map.addEventListener("pointermove", (event) => {
      const box = this.map.getBoundingClientRect();
      this.point(Math.floor((event.clientX - box.left) / this.side) + this.columns * Math.floor((event.clientY - box.top) / this.side));
    });
    this.map.addEventListener("pointerleave", () => this.point(null));
    this.map.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns, ArrowUp: -this.columns }[event.key];
      if (step === undefined || !this.pieces) return;
      event.preventDefault();
      this.point(this.at === null ? 0 : Math.max(0, Math.min(this.at + step, this.cells - 1)));
    });
    new ResizeObserver(() => this.draw()).observe(this.map);
    onTheme(() => this.draw());
  }

  // Take new layers: bytes of all of them, one after the other.
  update(pieces, layerCount, data) {
    const size = Math.ceil(pieces / 8), state = new Uint8Array(pieces), copies = new Uint8Array(pieces);
    const have = data.subarray(0, size), flying = data.subarray(size, 2 * size), writing = data.subarray(2 * size, 3 * size);
    let here = 0, least = 255, lost = 0;
    for (let byte = 0, index = 0; byte < size; byte += 1) {
      const h = have[byte], m = flying[byte] | writing[byte];
      for (let bit = 128; bit && index < pieces; bit >>= 1, index += 1) state[index] = h & bit ? 2 : m & bit ? 1 : 0;
    }
    for (let plane = 3; plane < layerCount; plane += 1) {
      const value = 1 << (plane - 3), base = plane * size;
      for (let byte = 0, index = 0; byte < size; byte += 1, index += 8) {
        const b = data[base + byte];
        if (!b) continue;
        for (let bit = 0; bit < 8 && index + bit < pieces; bit += 1) if (b & (128 >> bit)) copies[index + bit] += value;
      }
    }
    for (let index = 0; index < pieces; index += 1) {
      if (state[index] === 2) here += 1;
      else if (copies[index] < least) { least = copies[index]; lost = least === 0 ? 1 : 0; } else if (!copies[index]) lost += 1;
    }
    Object.assign(this, { pieces, state, copies, here, lost });
    put(this.count, pieces ? `${number(here)} of ${number(pieces)}` : "");
    put(this.rare, !pieces ? "–" : here === pieces ? "none missing" : least ? plural(least, "copy").replace("copys", "copies") : "nobody has it");
    const without = lost ? ` ${plural(lost, "piece")} that nobody connected has.` : "";
    set(this.map, "aria-label", pieces ? `Map of the pieces: ${number(here)} of ${number(pieces)} are here.${without}` : "Map of the pieces: not known yet");
    this.draw();
  }

  draw() {
    const { pen, width, height, ratio } = fit(this.map);
    if (!width) return;
    pen.clearRect(0, 0, width, height);
    let side = MOST;
    while (side > LEAST && Math.floor(width / side) * Math.floor(height / side) < this.pieces) side -= 1;
    const columns = Math.max(1, Math.floor(width / side)), capacity = columns * Math.floor(height / side);
    const group = Math.max(1, Math.ceil(this.pieces / capacity)), cells = Math.ceil(this.pieces / group);
    Object.assign(this, { side, columns, group, cells });
    if (!cells) return;
    this.paint(cells, columns, group);
    const rows = Math.ceil(cells / columns);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(this.small, 0, 0, columns, rows, 0, 0, columns * side, rows * side);
    if (side > 3) {  // lines between cells
      pen.fillStyle = colour("card");
      for (let x = 1; x <= columns; x += 1) pen.fillRect(x * side - 1, 0, 1, rows * side);
      for (let y = 1; y <= rows; y += 1) pen.fillRect(0, y * side - 1, columns * side, 1);
    }
    if (this.at !== null && this.at < cells) {
      pen.strokeStyle = colour("ink");
      pen.lineWidth = 2;
      pen.strokeRect((this.at % columns) * side - 1, Math.floor(this.at / columns) * side - 1, side + 1, side + 1);
    }
    this.heat(ratio);
    this.tell();
  }

  // One pixel a cell: the mean of its pieces' colours; what moves, and what nobody has, shows through.
  paint(cells, columns, group) {
    const { state, copies, pieces } = this;
    const rows = Math.ceil(cells / columns), image = new ImageData(columns, rows), out = image.data;
    const [lack, move, have, none] = ["lack", "move", "have", "none"].map((name) => rgb(colour(name)));
    for (let cell = 0; cell < cells; cell += 1) {
      let here = 0, moving = 0, missing = false;
      const first = cell * group, end = Math.min(first + group, pieces), all = end - first;
      for (let index = first; index < end; index += 1) {
        const at = state[index];
        if (at === 2) here += 1;
        else if (at === 1) moving += 1;
        else if (!copies[index]) missing = true;
      }
      const base = missing ? none : lack, part = moving ? 0 : here / all, at = cell * 4;
      for (let c = 0; c < 3; c += 1) out[at + c] = moving ? move[c] : have[c] * part + base[c] * (1 - part);
      out[at + 3] = 255;
    }
    this.small.width = columns;
    this.small.height = rows;
    this.small.getContext("2d").putImageData(image, 0, 0);
  }

  // Copies at peers: the rarest piece of each part of the content, dark where there are many.
  heat() {
    const { pen, width, height } = fit(this.strip);
    pen.clearRect(0, 0, width, height);
    const bars = Math.min(this.pieces, Math.floor(width / 2)), { copies, state } = this;
    let most = 1;
    const least = new Uint8Array(bars);
    for (let bar = 0; bar < bars; bar += 1) {
      const first = Math.floor((bar * this.pieces) / bars), end = Math.max(first + 1, Math.floor(((bar + 1) * this.pieces) / bars));
      let low = 255, mine = true;
      for (let index = first; index < end; index += 1) {
        if (copies[index] < low) low = copies[index];
        if (state[index] !== 2) mine = false;
      }
      least[bar] = low === 0 && !mine ? 255 : low;
      if (low > most) most = low;
    }
    const step = width / Math.max(bars, 1);
    for (let bar = 0; bar < bars; bar += 1) {
      const low = least[bar];
      pen.globalAlpha = low === 255 ? 1 : 0.15 + 0.85 * (low / most);
      pen.fillStyle = colour(low === 255 ? "none" : "main");
      pen.fillRect(bar * step, 0, Math.ceil(step), height);
    }
    pen.globalAlpha = 1;
  }

  point(cell) {
    this.at = cell === null || !this.pieces || cell < 0 || cell >= this.cells ? null : cell;
    this.pending ??= requestAnimationFrame(() => { this.pending = undefined; this.draw(); });
  }

  tell() {
    if (this.at === null) {
      const lost = this.lost ? `${plural(this.lost, "missing piece")} that nobody connected has. ` : "";
      put(this.text, `${lost}The strip shows copies at peers, from the first piece to the last.`);
      return;
    }
    const first = this.at * this.group, end = Math.min(first + this.group, this.pieces);
    let here = 0, moving = 0, least = 255;
    for (let index = first; index < end; index += 1) {
      here += this.state[index] === 2;
      moving += this.state[index] === 1;
      least = Math.min(least, this.copies[index]);
    }
    const name = end - first === 1 ? `Piece ${number(first)}` : `Pieces ${number(first)} to ${number(end - 1)}`;
    const how = end - first === 1 ? (here ? "here" : moving ? "on the way" : "missing") : `${here} of ${end - first} here${moving ? `, ${moving} on the way` : ""}`;
    put(this.text, `${name}: ${how}; ${least === 1 ? "1 copy" : `${least} copies`} at peers${end - first === 1 ? "" : ", at least"}.`);
  }
}
