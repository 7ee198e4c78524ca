// The node's side: requests with the key, and the stream of events. The key comes behind # in the
// address and stays in this tab; EventSource cannot send it in a header, so the stream is read here.

const KEY = "p2pdist key";

export function takeKey() {
  const given = decodeURIComponent(location.hash.slice(1));
  if (/^[0-9a-f]{64}$/.test(given)) {
    keepKey(given);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem(KEY);
}

export const keepKey = (key) => sessionStorage.setItem(KEY, key);

const head = () => ({ Authorization: `Bearer ${sessionStorage.getItem(KEY)}` });

export async function tell(path, body = {}) {
  const answer = await fetch(`/api/v1/${path}`, {
    method: "POST", headers: { ...head(), "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error.message);
  return said;
}

export const at = (content, what) => `contents/${encodeURIComponent(content)}/${what}`;

// RFC 7396; changes the target where it can, so that untouched rows stay the same objects.
export function merge(target, patch) {
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete target[name];
    else if (typeof value === "object" && !Array.isArray(value)) {
      const known = target[name];
      target[name] = merge(known && typeof known === "object" ? known : {}, value);
    } else target[name] = value;
  }
  return target;
}

// The layers of a piece map: bytes of a patch, xor those known unless it is fresh.
export async function layers(known, patch) {
  const packed = Uint8Array.from(atob(patch.data), (c) => c.charCodeAt(0));
  const plain = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const data = new Uint8Array(await new Response(plain).arrayBuffer());
  if (!patch.fresh && known.length === data.length) for (let i = 0; i < data.length; i += 1) data[i] ^= known[i];
  return data;
}

// Read events until the stream ends; `take(name, value)` may be asynchronous, and keeps the order.
async function read(content, signal, take, opened) {
  const query = content ? `?content=${encodeURIComponent(content)}` : "";
  const answer = await fetch(`/api/v1/events${query}`, { headers: head(), signal });
  if (!answer.ok) throw Object.assign(new Error((await answer.json()).error.message), { status: answer.status });
  opened();
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const cut = block.indexOf("\n");
      await take(block.slice(7, cut), JSON.parse(block.slice(cut + 7)));
    }
  }
}

// Follow a content for ever, calling again with growing patience; returns what ends it.
export function follow(content, { take, state, refused, opened }) {
  const stop = new AbortController();
  (async () => {
    for (let wait = 500; !stop.signal.aborted; wait = Math.min(2 * wait, 10_000)) {
      try {
        await read(content, stop.signal, take, () => { wait = 500; opened(); state("live"); });
      } catch (error) {
        if (stop.signal.aborted) return;
        if (error.status === 401) { refused(); return; }
      }
      state("lost");
      await new Promise((go) => setTimeout(go, wait));
    }
  })();
  return () => stop.abort();
}
