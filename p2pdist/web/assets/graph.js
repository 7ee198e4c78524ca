// This node and its connections: thick where much moves, in the colour of the way it moves.

import { number, plural, put, rate, set } from "./words.js";

const SVG = "http://www.w3.org/2000/svg", WIDTH = 560, HEIGHT = 250, NAMED = 18;

export class Graph {
  constructor() {
    [this.svg, this.list, this.open, this.count] = ["graph", "peers", "list", "graph-count"].map((id) => document.getElementById(id));
    this.parts = new Map();
    this.edges = this.make("g");
    this.nodes = this.make("g");
    this.svg.append(this.edges, this.nodes);
    this.centre = this.make("circle", { class: "self", cx: WIDTH / 2, cy: HEIGHT / 2, r: 21 });
    this.name = this.make("text", { class: "self-name", x: WIDTH / 2, y: HEIGHT / 2 + 4, "text-anchor": "middle" });
    this.name.textContent = "you";
    this.svg.append(this.centre, this.name);
    this.open.addEventListener("toggle", () => this.tell());
    this.shown = [];
  }

  make(name, attributes = {}) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  }

  update(peers, hosts) {
    this.shown = Object.values(peers).sort((a, b) => (a.node < b.node ? -1 : 1)).map((peer) => {
      const host = hosts[peer.node];
      return { ...peer, name: host?.name ?? peer.address, full: Boolean(host?.complete) };
    });
    const there = new Set(this.shown.map((peer) => peer.node));
    for (const [node, part] of this.parts) {
      if (!there.has(node)) { part.edge.remove(); part.group.remove(); this.parts.delete(node); }
    }
    this.shown.forEach((peer, at) => this.place(peer, at));
    put(this.count, number(this.shown.length));
    set(this.svg, "aria-label", `${plural(this.shown.length, "connection")} of this node`);
    this.svg.removeAttribute("aria-labelledby");
    this.tell();
  }

  place(peer, at) {
    let part = this.parts.get(peer.node);
    if (!part) {
      part = { edge: this.make("line", { class: "edge" }), group: this.make("g"), dot: this.make("circle", { class: "node" }), text: this.make("text"), title: this.make("title") };
      part.group.append(part.title, part.dot, part.text);
      part.group.addEventListener("pointerenter", () => put(part.title, this.sentence(part.peer)));
      this.edges.append(part.edge);
      this.nodes.append(part.group);
      this.parts.set(peer.node, part);
    }
    const count = this.shown.length, angle = (2 * Math.PI * at) / count - Math.PI / 2, ring = count > 24 && at % 2 ? 0.72 : 1;
    const x = WIDTH / 2 + Math.cos(angle) * (count > NAMED ? 250 : 165) * ring, y = HEIGHT / 2 + Math.sin(angle) * 108 * ring;
    const moves = peer.down + peer.up, most = count > 24 ? 3.5 : 8;
    const thick = moves ? Math.min(most, 1 + (most / 9) * Math.log2(1 + moves / 65536)) : 1;
    const place = { x1: WIDTH / 2, y1: HEIGHT / 2, x2: x.toFixed(1), y2: y.toFixed(1), "stroke-width": (Math.round(2 * thick) / 2).toFixed(1), "data-way": moves ? (peer.down >= peer.up ? "down" : "up") : "none" };
    for (const [key, value] of Object.entries(place)) set(part.edge, key, String(value));
    set(part.dot, "cx", x.toFixed(1)); set(part.dot, "cy", y.toFixed(1)); set(part.dot, "r", count > 40 ? "5" : "8"); set(part.dot, "data-full", String(peer.full));
    const right = Math.cos(angle) >= -0.01;
    set(part.text, "x", (x + (right ? 13 : -13)).toFixed(1)); set(part.text, "y", (y + 4).toFixed(1)); set(part.text, "text-anchor", right ? "start" : "end");
    const name = peer.name.length > 16 ? `${peer.name.slice(0, 15)}…` : peer.name;
    put(part.text, count <= NAMED ? name : "");
    part.peer = peer;
  }

  sentence(peer) {
    return `${peer.name} (${peer.address})${peer.full ? ", has everything" : ""}: ${rate(peer.down)} down, ${rate(peer.up)} up`;
  }

  tell() {
    if (!this.open.open) return;
    while (this.list.children.length > this.shown.length) this.list.lastChild.remove();
    while (this.list.children.length < this.shown.length) this.list.append(document.createElement("li"));
    this.shown.forEach((peer, at) => put(this.list.children[at], this.sentence(peer)));
  }
}
