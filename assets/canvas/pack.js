// A message is one blob, because Streamlit hands raw bytes over only at the top level of `data`:
// uint32 header length (little-endian) · JSON header · raw arrays, each starting on a multiple of 4.

const TYPES = { f4: Float32Array, u1: Uint8Array };

/** Uint8Array → the header, with every packed array in it as {shape, data}. */
export function unpack(bytes) {
  const own = bytes.slice(); // the websocket's view starts anywhere; a copy starts at 0 and is aligned
  const body = 4 + new DataView(own.buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(own.subarray(4, body)));
  for (const { name, dtype, shape, offset } of header.arrays) {
    const count = shape.reduce((a, b) => a * b, 1);
    header[name] = { shape, data: new TYPES[dtype](own.buffer, body + offset, count) };
  }
  return header;
}

export function same(a, b) {
  if (!a || !b || a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
