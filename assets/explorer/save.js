// A picture or its numbers as a file, made in the browser.

function offer(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** A matrix as a table: queries down, keys across, both named by position and label. */
export function table(matrix) {
  const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
  const names = (axis) =>
    Array.from({ length: matrix.axes[axis].count }, (_, i) => {
      const name = `${matrix.position(axis, i)}:${matrix.axes[axis].labels[i]}`;
      return quoted(/^[=+\-@\t\r]/.test(name) ? `'${name}` : name); // a spreadsheet would run it
    });
  const rows = names("query").map((name, q) => {
    const cells = Array.from(matrix.data.subarray(q * matrix.K, (q + 1) * matrix.K));
    return [name, ...cells.map((value) => (Number.isFinite(value) ? value : ""))].join(",");
  });
  return [["", ...names("key")].join(","), ...rows].join("\r\n");
}

/** kind: "png", as it is on the screen, or "csv". */
export function save({ view, base, over, theme }, kind) {
  const { matrix } = view;
  const name = `${view.figure.root.dataset.head.replace(/\W+/g, "-") || "head"}.${kind}`;
  if (kind === "csv") return offer(new Blob([table(matrix)], { type: "text/csv" }), name);
  const both = document.createElement("canvas");
  [both.width, both.height] = [base.width, base.height];
  const pen = both.getContext("2d");
  pen.fillStyle = theme.background;
  pen.fillRect(0, 0, both.width, both.height);
  pen.drawImage(base, 0, 0);
  pen.drawImage(over, 0, 0); // the labels
  both.toBlob((blob) => offer(blob, name), "image/png");
}
