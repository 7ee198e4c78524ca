// Numbers as people read them; the same words as the command line's.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(count) {
  let size = count || 0, unit = 0;
  while (size >= 999.5 && unit < UNITS.length - 1) { size /= 1024; unit += 1; }
  return `${size.toFixed(unit && size < 99.95 ? 1 : 0)} ${UNITS[unit]}`;
}

export const rate = (perSecond) => `${bytes(perSecond)}/s`;

const grouped = new Intl.NumberFormat("en");

export const number = (count) => grouped.format(count || 0);

export const plural = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;

export function span(seconds) {
  const whole = Math.round(seconds), minutes = Math.floor(whole / 60), hours = Math.floor(whole / 3600);
  if (whole < 60) return `${whole} s`;
  if (hours < 1) return `${minutes} min ${String(whole % 60).padStart(2, "0")} s`;
  if (hours < 24) return `${hours} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

// The part of all there is, in whole percent; 100 only when nothing is missing.
export const percent = (part, all) => (all ? Math.floor((100 * part) / all) : 0);

// Set text only where it changed: untouched text costs no layout.
export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function set(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

const colours = new Map();
const dark = matchMedia("(prefers-color-scheme: dark)");
dark.addEventListener("change", () => colours.clear());

// A colour of the style sheet, as it is now.
export function colour(name) {
  if (!colours.has(name)) colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  return colours.get(name);
}

export const onTheme = (draw) => dark.addEventListener("change", () => requestAnimationFrame(draw));

// Make a canvas as sharp as the screen; returns its size in CSS pixels.
export function fit(canvas) {
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  const w = Math.round(width * ratio), h = Math.round(height * ratio);
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  return { pen, width, height, ratio };
}
