// A message is one blob, because Streamlit hands raw bytes over only at the top level of `data`:
// uint32 header length (little-endian) · JSON header · raw arrays, each starting on a multiple of 4.

const TYPES = { f4: Float32Array, f2: Uint16Array, u1: Uint8Array }; // halves stay bits until somebody reads them

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

/** float16 bits → the number. */
function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction);
}

let halves = null; // all 65,536 of them, made when the first is read

/** Uint16Array of float16 bits → Float32Array. */
export function widen(bits) {
  halves ??= Float32Array.from({ length: 65536 }, (_, i) => half(i));
  return Float32Array.from(bits, (i) => halves[i]);
}
