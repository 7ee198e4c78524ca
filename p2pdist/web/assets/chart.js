// Rates over time: a line for what comes in and one for what goes out.

import { colour, fit, onTheme, rate, set, span } from "./words.js";

const LEFT = 74, BOTTOM = 20, TOP = 8;

// The next step of 1, 2, 5 times a power of ten, in units of 1024.
function nice(most) {
  let unit = 1;
  while (most / unit >= 1024) unit *= 1024;
  for (const step of [1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000]) if (step * unit >= most) return step * unit;
  return 1024 * unit;
}

export class Chart {
  constructor() {
    this.canvas = document.getElementById("rates");
    this.samples = [];
    this.seconds = 300;
    const tabs = [...document.querySelectorAll("[data-span]")];
    for (const tab of tabs) {
      tab.addEventListener("click", () => {
        this.seconds = Number(tab.dataset.span);
        for (const one of tabs) set(one, "aria-pressed", String(one === tab));
        this.draw();
      });
    }
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    onTheme(() => this.draw());
  }

  clear() { this.samples = []; }

  add(samples) {
    this.samples.push(...samples);
    const end = samples[samples.length - 1]?.[0] ?? 0;
    while (this.samples.length && this.samples[0][0] < end - 3600) this.samples.shift();
  }

  draw() {
    const { pen, width, height } = fit(this.canvas);
    if (!width) return;
    pen.clearRect(0, 0, width, height);
    const end = this.samples[this.samples.length - 1]?.[0] ?? 0, begin = end - this.seconds;
    const shown = this.samples.filter((sample) => sample[0] >= begin - 10);
    const top = nice(Math.max(1024, ...shown.map((sample) => Math.max(sample[1], sample[2]))));
    const x = (at) => LEFT + ((at - begin) / this.seconds) * (width - LEFT - 2), floor = height - BOTTOM;
    const y = (value) => floor - (value / top) * (floor - TOP);
    pen.font = "11.5px system-ui, sans-serif";
    pen.textBaseline = "middle";
    for (const part of [0, 0.5, 1]) {
      const line = Math.round(y(part * top)) + 0.5;
      pen.strokeStyle = colour("line");
      pen.lineWidth = 1;
      pen.beginPath(); pen.moveTo(LEFT, line); pen.lineTo(width, line); pen.stroke();
      pen.fillStyle = colour("soft");
      pen.textAlign = "right";
      pen.fillText(part ? rate(part * top) : "0", LEFT - 8, line);
    }
    for (const part of [0, 0.5, 1]) {
      pen.textAlign = part === 0 ? "left" : part === 1 ? "right" : "center";
      pen.fillText(part === 1 ? "now" : `${span((1 - part) * this.seconds).replace(" 00 s", "").replace(" 00 min", "")} ago`, x(begin + part * this.seconds), height - 7);
    }
    pen.save();
    pen.beginPath(); pen.rect(LEFT, 0, width - LEFT, floor + 1); pen.clip();
    this.line(pen, shown, x, y, 2, "up", floor);
    this.line(pen, shown, x, y, 1, "down", floor);
    pen.restore();
    const last = shown[shown.length - 1] ?? [0, 0, 0];
    set(this.canvas, "aria-label", `Rates over time. Now ${rate(last[1])} down and ${rate(last[2])} up.`);
  }

  line(pen, shown, x, y, member, name, floor) {
    if (shown.length < 2) return;
    pen.beginPath();
    shown.forEach((sample, at) => (at ? pen.lineTo(x(sample[0]), y(sample[member])) : pen.moveTo(x(sample[0]), y(sample[member]))));
    pen.strokeStyle = colour(name);
    pen.lineWidth = 2;
    pen.lineJoin = "round";
    pen.stroke();
    pen.lineTo(x(shown[shown.length - 1][0]), floor);
    pen.lineTo(x(shown[0][0]), floor);
    pen.globalAlpha = 0.1;
    pen.fillStyle = colour(name);
    pen.fill();
    pen.globalAlpha = 1;
  }
}
