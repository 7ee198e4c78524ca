// The table of machines: sorted, filtered, and only as many rows in the page as can be seen.

import { bytes, number, percent, put, rate, set, span } from "./words.js";

const ROW = 34, SPARE = 8;

const share = (host) => (host.pieces ? host.have_pieces / host.pieces : 0);
const byName = (a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : a.node < b.node ? -1 : 1);
const rank = (a, b) => Number(a.complete) - Number(b.complete) || (a.complete ? 0 : share(a) - share(b)) || byName(a, b);

const COLUMNS = [
  { name: "Machine", width: "20%", by: byName },
  { name: "Done", width: "17%", by: rank, first: "ascending" },
  { name: "Down", width: "14%", num: true, by: (a, b) => b.download_bytes_per_s - a.download_bytes_per_s || byName(a, b) },
  { name: "Up", width: "14%", num: true, by: (a, b) => b.upload_bytes_per_s - a.upload_bytes_per_s || byName(a, b) },
  { name: "What it waits for", width: "22%", by: (a, b) => (a.why < b.why ? -1 : a.why > b.why ? 1 : byName(a, b)) },
  { name: "Heard of", width: "13%", num: true, by: (a, b) => a.heard - b.heard || byName(a, b) },
];

// It is one of the fleet: it is still there, or was done when it left.
export const counts = (host) => !host.left || host.complete;

const SHOWN = {
  here: counts,
  open: (host) => !host.left && !host.complete,
  done: (host) => host.complete,
  silent: (host) => !host.left && host.silent,
  left: (host) => host.left,
};

const KINDS = { done: "good", failed: "bad", disk_full: "bad", finding_peers: "warn", no_peer_has_pieces: "warn", unknown: "warn", paused: "warn" };
const SHORT = {
  unknown: "not known", done: "done", finding_peers: "finding peers", no_peer_has_pieces: "pieces nobody has", waiting_for_slots: "its turn",
  remote_upload: "peers' upload", own_limit: "its own limit", disk: "its disk", hashing: "checking", disk_full: "disk full", paused: "paused", failed: "failed",
};

export class Fleet {
  constructor() {
    const find = (id) => document.getElementById(id);
    [this.scroll, this.table, this.body, this.empty, this.detail] = ["scroll", "table", "rows", "empty", "detail"].map(find);
    [this.find, this.show, this.count, this.reasons] = ["find", "show", "fleet-count", "reasons"].map(find);
    this.chips = new Map();
    this.reason = null;
    this.hosts = {};
    this.listed = [];
    this.column = COLUMNS[1];
    this.turned = false;
    this.chosen = null;
    this.rows = [];
    this.now = 0;
    this.top = this.pad();
    this.bottom = this.pad();
    this.body.append(this.top, this.bottom);
    this.heads(find("columns"));
    this.scroll.addEventListener("scroll", () => this.soon(), { passive: true });
    new ResizeObserver(() => this.soon()).observe(this.scroll);
    this.find.addEventListener("input", () => this.update());
    this.show.addEventListener("change", () => this.update());
    this.table.addEventListener("keydown", (event) => this.key(event));
    this.body.addEventListener("click", (event) => {
      const row = event.target.closest("[data-index]");
      if (row) this.choose(Number(row.dataset.index));
    });
  }

  pad() {
    const row = document.createElement("tr"), cell = document.createElement("td");
    row.setAttribute("role", "presentation");
    cell.className = "pad";
    cell.colSpan = COLUMNS.length;
    row.append(cell);
    return row;
  }

  heads(row) {
    this.heading = COLUMNS.map((column) => {
      const cell = document.createElement("th"), button = document.createElement("button");
      cell.scope = "col";
      cell.style.width = column.width;
      if (column.num) cell.className = "num";
      button.type = "button";
      button.textContent = column.name;
      button.addEventListener("click", () => {
        this.turned = this.column === column && !this.turned;
        this.column = column;
        this.update();
      });
      cell.append(button);
      row.append(cell);
      return cell;
    });
  }

  update(hosts = this.hosts, now = this.now) {
    this.hosts = hosts;
    this.now = now;
    const wanted = this.find.value.trim().toLowerCase(), shown = SHOWN[this.show.value];
    const all = Object.values(hosts);
    this.sum(all);
    this.listed = all.filter((host) => shown(host) && (!this.reason || host.reason === this.reason) && (!wanted || host.name.toLowerCase().includes(wanted)
      || host.why.toLowerCase().includes(wanted) || host.reason.includes(wanted) || host.node.startsWith(wanted)));
    this.listed.sort(this.column.by);
    if (this.turned) this.listed.reverse();
    this.heading.forEach((cell, at) => set(cell, "aria-sort", COLUMNS[at] === this.column ? (this.turned ? "descending" : "ascending") : "none"));
    set(this.table, "aria-rowcount", String(this.listed.length + 1));
    put(this.count, this.listed.length === all.length ? number(all.length) : `${number(this.listed.length)} of ${number(all.length)}`);
    this.empty.hidden = this.listed.length > 0;
    put(this.empty, all.length ? "No machine is like that." : "No machine has been heard of yet.");
    this.draw();
  }

  // How many wait for what: press one to see them only.
  sum(all) {
    const counts = {};
    for (const host of all) if (!host.left && !host.complete) counts[host.reason] = (counts[host.reason] ?? 0) + 1;
    if (this.reason && !counts[this.reason]) this.reason = null;
    for (const reason of Object.keys(SHORT)) {
      let chip = this.chips.get(reason);
      if (!counts[reason]) { chip?.item.remove(); continue; }
      if (!chip) {
        chip = { item: document.createElement("li"), button: document.createElement("button") };
        chip.button.type = "button";
        chip.button.dataset.kind = KINDS[reason] ?? "busy";
        chip.button.addEventListener("click", () => { this.reason = this.reason === reason ? null : reason; this.update(); });
        chip.item.append(chip.button);
        this.chips.set(reason, chip);
      }
      if (!chip.item.isConnected) this.reasons.append(chip.item);
      put(chip.button, `${SHORT[reason]} ${number(counts[reason])}`);
      set(chip.button, "aria-pressed", String(this.reason === reason));
    }
  }

  soon() {
    this.pending ??= requestAnimationFrame(() => { this.pending = undefined; this.draw(); });
  }

  draw() {
    const height = this.scroll.clientHeight, count = this.listed.length;
    const first = Math.max(0, Math.min(Math.floor(this.scroll.scrollTop / ROW) - SPARE, count - 1));
    const last = Math.min(count, first + Math.ceil(height / ROW) + 2 * SPARE);
    while (this.rows.length < last - first) this.rows.push(this.row());
    this.rows.forEach((row, at) => {
      const index = first + at, shown = index < last;
      if (row.shown !== shown) { row.shown = shown; if (shown) this.bottom.before(row.line); else row.line.remove(); }
      if (shown) this.fill(row, this.listed[index], index);
    });
    this.top.firstChild.style.height = `${first * ROW}px`;
    this.bottom.firstChild.style.height = `${(count - last) * ROW}px`;
    this.tell();
  }

  row() {
    const line = document.createElement("tr");
    line.setAttribute("role", "row");
    const cells = COLUMNS.map((column) => {
      const cell = document.createElement("td");
      cell.setAttribute("role", "gridcell");
      if (column.num) cell.className = "num";
      line.append(cell);
      return cell;
    });
    const done = document.createElement("div"), bar = document.createElement("i"), fill = document.createElement("b"), text = document.createElement("span");
    done.className = "done";
    bar.append(fill);
    done.append(bar, text);
    cells[1].append(done);
    const badge = document.createElement("span");
    badge.className = "badge";
    cells[4].append(badge);
    return { line, cells, done, fill, text, badge, shown: false };
  }

  fill(row, host, index) {
    const { line, cells } = row;
    line.dataset.index = index;
    line.id = `host-${index}`;
    set(line, "aria-rowindex", String(index + 2));
    set(line, "aria-selected", String(host.node === this.chosen));
    put(cells[0], host.name || host.node.slice(0, 8));
    const part = host.complete ? 1 : share(host);
    put(row.text, host.complete ? "100 %" : `${percent(host.have_pieces, host.pieces)} %`);
    const scale = `scaleX(${part.toFixed(3)})`;
    if (row.scale !== scale) { row.scale = scale; row.fill.style.transform = scale; }
    set(row.done, "data-full", String(host.complete));
    put(cells[2], host.download_bytes_per_s ? rate(host.download_bytes_per_s) : "–");
    put(cells[3], host.upload_bytes_per_s ? rate(host.upload_bytes_per_s) : "–");
    put(row.badge, host.left ? (host.complete ? "done, left" : "left") : host.lost ? "lost" : host.silent ? "silent" : SHORT[host.reason] ?? host.reason);
    set(row.badge, "data-kind", host.silent && !host.left ? "bad" : KINDS[host.reason] ?? "busy");
    const age = Math.max(0, this.now - host.heard);
    put(cells[5], age < 10 ? "now" : `${span(age < 60 ? 10 * Math.floor(age / 10) : 60 * Math.floor(age / 60)).replace(" 00 s", "")} ago`);
  }

  key(event) {
    if (event.target !== this.table || !this.listed.length) return;
    const page = Math.max(1, Math.floor(this.scroll.clientHeight / ROW) - 2);
    const now = this.listed.findIndex((host) => host.node === this.chosen);
    const to = { ArrowDown: now + 1, ArrowUp: Math.max(0, now - 1), PageDown: now + page, PageUp: now - page, Home: 0, End: this.listed.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.choose(Math.max(0, Math.min(to, this.listed.length - 1)));
  }

  choose(index) {
    this.chosen = this.listed[index].node;
    const head = this.heading[0].offsetHeight, top = index * ROW, view = this.scroll;
    if (top < view.scrollTop) view.scrollTop = top;
    else if (top + ROW + head > view.scrollTop + view.clientHeight) view.scrollTop = top + ROW + head - view.clientHeight;
    this.draw();
    set(this.table, "aria-activedescendant", `host-${index}`);
  }

  tell() {
    const host = this.hosts[this.chosen];
    if (!host) { put(this.detail, this.listed.length ? "Choose a machine to read what holds it up." : ""); return; }
    const free = host.disk_free ? `, ${bytes(host.disk_free)} of disk free` : "";
    const silent = host.silent && !host.left ? ", but has not been heard of lately" : "";
    put(this.detail, `${host.name} ${host.left ? "left" : host.why}${silent}${free}; p2pdist ${host.version || "?"}, node ${host.node.slice(0, 8)}.`);
  }
}
