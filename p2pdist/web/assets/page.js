// The page: what the stream tells goes to its parts; buttons tell the node.

import { Chart } from "./chart.js";
import { counts, Fleet } from "./fleet.js";
import { Graph } from "./graph.js";
import { Pieces } from "./pieces.js";
import { at, follow, keepKey, layers, merge, takeKey, tell } from "./stream.js";
import { bytes, number, percent, plural, put, rate, set, span } from "./words.js";

const find = (id) => document.getElementById(id);
const LINES = 300;
const LINK = { live: "live", wait: "connecting", lost: "no answer; trying again" };
const STAGES = { seeding: "good", failed: "bad", stopped: "warn", paused: "warn" };

let state = {}, now = 0, map = new Uint8Array(0), mapped = { pieces: 0, layers: 0, drawn: true };
let end = () => {}, wanted = null, told = null, limited = null, marked = false;
let fleet, pieces, chart, graph;

function link(name) {
  set(find("link"), "data-state", name);
  put(find("link-text"), LINK[name]);
}

function door(text = "") {
  end();
  for (const id of ["main", "link", "limit-node"]) find(id).hidden = true;
  find("door").hidden = false;
  put(find("door-text"), text);
  find("key").focus();
}

function begin(content = null) {
  end();
  wanted = content;
  find("door").hidden = true;
  find("link").hidden = false;
  link("wait");
  end = follow(content, {
    take,
    state: link,
    opened: () => {
      state = {};
      unmap();
      chart?.clear();
      find("log").replaceChildren();
    },
    refused: () => { sessionStorage.clear(); door("That is not the key of this node."); },
  });
}

function unmap() {
  map = new Uint8Array(0);
  mapped = { pieces: 0, layers: 0, drawn: false };
}

// A step's events come together, that of rates last but for the log: then all is drawn, once.
async function take(name, value) {
  if (find("main").hidden) show();
  if (name === "state") {
    merge(state, value.patch);
    now = value.now;
  } else if (name === "pieces") {
    map = await layers(value.fresh ? new Uint8Array(0) : map, value);
    mapped = { ...value, drawn: false };
  } else if (name === "rates") {
    chart.add(value.samples);
    draw();
  } else if (name === "log") log(value.lines);
}

function show() {
  find("main").hidden = find("limit-node").hidden = false;
  fleet ??= new Fleet();
  pieces ??= new Pieces();
  chart ??= new Chart();
  graph ??= new Graph();
}

function draw() {
  if (document.hidden) return;  // nobody looks: the state is kept, and drawn when somebody does
  const { node = {}, contents = {}, paused = {}, hosts = {}, peers = {} } = state, shown = state.content;
  const one = contents[shown], idle = paused[shown];
  put(find("who"), `node ${(node.node ?? "").slice(0, 8)} on port ${node.port}, p2pdist ${node.version}`);
  choices({ ...contents, ...paused }, shown);
  const all = Object.values(hosts).filter(counts), done = all.filter((host) => host.complete).length;
  put(find("name"), one?.name ?? idle?.name ?? (idle ? shown.slice(0, 11) : "This node holds no content"));
  const stage = one ? one.stage : idle ? "paused" : "";
  put(find("stage"), stage);
  set(find("stage"), "data-kind", STAGES[stage] ?? "busy");
  find("pause").hidden = find("limit").hidden = !(one || idle);
  find("limit").hidden ||= !one;
  put(find("pause"), idle ? "Resume" : "Pause");
  const have = one?.have_bytes ?? 0, length = one?.length ?? 0, whole = percent(have, length);
  find("meter-fill").style.transform = `scaleX(${length ? have / length : 0})`;
  set(find("meter"), "aria-valuenow", String(whole));
  const checked = one?.checked ? `checking what is here: ${bytes(one.checked[0])} of ${bytes(one.checked[1])}` : null;
  put(find("amount"), checked ?? (length ? `${bytes(have)} of ${bytes(length)} here, ${whole} %${one.eta_s ? `, ${span(one.eta_s)} left` : ""}` : ""));
  put(find("waits"), one?.error ? `Failed: ${one.error}` : one?.waiting_for ? `Waits for ${one.waiting_for}` : bounds(one));
  put(find("t-done"), all.length ? `${number(done)} / ${number(all.length)}` : "–");
  put(find("t-eta"), eta(all, length));
  put(find("t-down"), one ? rate(one.download_bytes_per_s) : "–");
  put(find("t-up"), one ? rate(one.upload_bytes_per_s) : "–");
  put(find("t-peers"), one ? number(one.peers) : "–");
  document.title = one ? `${whole} % · ${one.name}` : "p2pdist";
  say(done, all.length, stage);
  fleet.update(hosts, now);
  graph.update(peers, hosts);
  chart.draw();
  if (!one && mapped.pieces) unmap();
  if (!mapped.drawn) pieces.update(mapped.pieces, mapped.layers, map);
  mapped.drawn = true;
  if (!marked) { marked = true; requestAnimationFrame(() => performance.mark("p2pdist-shown")); }
}

function bounds(one) {
  const { download, upload } = one?.limits ?? {};
  return [download && `down limited to ${rate(download)}`, upload && `up limited to ${rate(upload)}`].filter(Boolean).join(", ");
}

// When the slowest machine is done at its present speed, as the command line says it.
function eta(hosts, length) {
  const left = hosts.filter((host) => !host.complete && host.pieces);
  if (!hosts.length || !length) return "–";
  if (hosts.every((host) => host.complete)) return "done";
  const stuck = left.filter((host) => !host.download_bytes_per_s).length;
  if (stuck || !left.length) return stuck ? `${number(stuck)} stuck` : "–";
  return span(Math.max(...left.map((host) => ((1 - host.have_pieces / host.pieces) * length) / host.download_bytes_per_s)));
}

// Screen readers hear of great moments only.
function say(done, all, stage) {
  const now = `${done}/${all} ${stage}`;
  if (told !== null && told !== now) put(find("said"), `${done} of ${plural(all, "machine")} done. This one: ${stage || "no content"}.`);
  told = now;
}

function choices(known, shown) {
  const select = find("content"), keys = Object.keys(known);
  select.hidden = keys.length < 2;
  find("name").hidden = keys.length > 1;
  if (select.dataset.keys !== keys.join()) {
    select.dataset.keys = keys.join();
    select.replaceChildren(...keys.map((key) => new Option(known[key].name ?? key.slice(0, 11), key)));
  }
  if (shown && select.value !== shown) select.value = shown;
}

function log(lines) {
  const list = find("log"), bottom = list.scrollTop + list.clientHeight > list.scrollHeight - 30;
  for (const line of lines.slice(-LINES)) {
    const item = document.createElement("li"), time = document.createElement("time"), text = document.createElement("span");
    const when = new Date(1000 * line.time);
    time.dateTime = when.toISOString();
    time.textContent = when.toLocaleTimeString("en-GB");
    text.textContent = line.text;
    item.dataset.level = line.level;
    item.append(time, text);
    list.append(item);
  }
  while (list.children.length > LINES) list.firstChild.remove();
  if (bottom) list.scrollTop = list.scrollHeight;
}

async function press(button, work) {
  button.disabled = true;
  try { await work(); } catch (error) { put(find("said"), error.message); put(find("waits"), error.message); }
  button.disabled = false;
}

function ask(content) {
  limited = content;
  const now = (content ? state.contents?.[content]?.limits : state.node?.limits) ?? {};
  put(find("limits-h"), content ? `Limits of ${state.contents[content].name}` : "Limits of this node");
  find("limit-down").value = now.download ? `${Math.round(now.download / 1024)}KiB` : "";
  find("limit-up").value = now.upload ? `${Math.round(now.upload / 1024)}KiB` : "";
  put(find("limits-text"), "");
  find("limits").showModal();
}

find("door").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = find("key").value.trim();
  keepKey(given.slice(given.indexOf("#") + 1));
  find("key").value = "";
  begin();
});
find("content").addEventListener("change", (event) => begin(event.target.value));
find("pause").addEventListener("click", (event) => press(event.target, () => tell(at(state.content, state.paused?.[state.content] ? "resume" : "pause"))));
find("limit").addEventListener("click", () => ask(state.content));
find("limit-node").addEventListener("click", () => ask(null));
find("limits-no").addEventListener("click", () => find("limits").close());
find("limits-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = { download: find("limit-down").value.trim() || "none", upload: find("limit-up").value.trim() || "none" };
  try {
    await tell(limited ? at(limited, "limit") : "limit", body);
    find("limits").close();
  } catch (error) { put(find("limits-text"), error.message); }
});
find("loud").addEventListener("change", (event) => find("log").parentElement.classList.toggle("loud", event.target.checked));
document.addEventListener("visibilitychange", () => {
  if (document.hidden || find("main").hidden) return;
  draw();
});
addEventListener("hashchange", () => { if (takeKey()) begin(wanted); });

if (takeKey()) begin(); else door();
