// Colour scales are made in OKLCH with lightness linear in the value, so equal steps of weight look equal,
// they survive a greyscale print, and hue runs along blue–green only: red is kept for the alarm.
// OKLab: B. Ottosson, "A perceptual color space for image processing" (2020).

function oklch(L, C, hue) {
  const a = C * Math.cos((hue * Math.PI) / 180);
  const b = C * Math.sin((hue * Math.PI) / 180);
  const l = (L + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (L - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (L - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ].map((x) => {
    const linear = Math.min(1, Math.max(0, x));
    return Math.round(255 * (linear <= 0.0031308 ? 12.92 * linear : 1.055 * linear ** (1 / 2.4) - 0.055));
  });
}

const arc = (t) => Math.sin(Math.PI * t);
const SCALES = {
  light: {
    sequential: (t) => oklch(0.985 - 0.69 * t, 0.006 + 0.1 * t + 0.055 * arc(t), 200 + 70 * t),
    diverging: (t) => oklch(0.975 - 0.6 * Math.abs(t), 0.105 * Math.abs(t) ** 0.8, t < 0 ? 65 : 238),
  },
  dark: {
    sequential: (t) => oklch(0.215 + 0.745 * t, 0.03 + 0.02 * t + 0.09 * arc(t), 285 - 125 * t),
    diverging: (t) => oklch(0.235 + 0.66 * Math.abs(t), 0.105 * Math.abs(t) ** 0.8, t < 0 ? 75 : 225),
  },
};

const pixel = ([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0; // RGBA bytes, little-endian
const hex = (rgb) => "#" + rgb.map((x) => x.toString(16).padStart(2, "0")).join("");

function table(scale, from) {
  const rgb = Array.from({ length: 256 }, (_, i) => scale(from + ((1 - from) * i) / 255));
  return { pixels: Uint32Array.from(rgb, pixel), css: rgb.map(hex), dark: rgb.map(([r, g, b]) => luminance(r, g, b) < 0.179) };
}

/** WCAG's relative luminance: below 0.179 white text has the larger contrast, above it black. */
const luminance = (...rgb) => {
  const [r, g, b] = rgb.map((x) => (x <= 10 ? x / 3294.6 : ((x / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};

const luma = (r, g, b) => (0.299 * r + 0.587 * g + 0.114 * b) / 255;
const tables = {}; // scales depend on light/dark only: made once per page

const probe = document.createElement("canvas").getContext("2d");
function parse(css) {
  probe.fillStyle = "#888";
  probe.fillStyle = css; // the browser normalises any CSS colour; an unknown one leaves the grey
  const text = probe.fillStyle;
  return text[0] === "#"
    ? [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16))
    : text
        .match(/[\d.]+/g)
        .slice(0, 3)
        .map(Number);
}

/** What drawing needs of Streamlit's theme, read from the `--st-*` variables at `element`. */
export function readTheme(element) {
  const style = getComputedStyle(element);
  const get = (name, fallback) => style.getPropertyValue("--st-" + name).trim() || fallback;
  const background = parse(get("background-color", "#ffffff"));
  const text = parse(get("text-color", "#31333f"));
  const primary = parse(get("primary-color", "#ff4b4b"));
  const dark = luma(...background) < 0.5;
  const mode = dark ? "dark" : "light";
  tables[mode] ??= { sequential: table(SCALES[mode].sequential, 0), diverging: table(SCALES[mode].diverging, -1) };
  const ink = (alpha) => `rgba(${text.join(",")},${alpha})`;
  // Streamlit's default accent is itself a red: an outline must not look like the alarm.
  const red = primary[0] > 180 && primary[1] < 130 && primary[2] < 110;
  const font = get("font", "sans-serif");
  const root = parseFloat(getComputedStyle(document.documentElement).fontSize);
  const unit = root > 16 ? root / 14 : 1; // in a room with large type, labels are large too
  return {
    id: [background, text, primary, font, unit].join(),
    unit,
    type: (size) => `${size * unit}px ${font}`,
    dark,
    font,
    ink,
    background: hex(background),
    text: hex(text),
    accent: red ? (dark ? "#eda6ff" : "#9c1fb5") : hex(primary),
    alarm: dark ? "#ff5530" : "#e0340b",
    empty: dark ? hex(background.map((x) => x + 9)) : hex(background.map((x) => Math.max(0, x - 12))),
    hatch: ink(dark ? 0.17 : 0.15),
    ...tables[mode],
  };
}

export const alarmPixel = (theme) => pixel(parse(theme.alarm));
export const emptyPixel = (theme) => pixel(parse(theme.empty));

/** A quiet diagonal hatch, drawn in device pixels so that it stays crisp at any zoom. */
export function hatch(context, theme, ratio) {
  const size = Math.max(4, Math.round(5 * ratio));
  const tile = document.createElement("canvas");
  tile.width = tile.height = size;
  const pen = tile.getContext("2d");
  pen.strokeStyle = theme.hatch;
  pen.lineWidth = ratio;
  for (const shift of [-size, 0, size]) {
    pen.moveTo(shift - 1, size + 1);
    pen.lineTo(shift + size + 1, -1);
  }
  pen.stroke();
  return context.createPattern(tile, "repeat");
}
