// A button that copies the address of what is shown.

const STYLE = `button { font: inherit; font-size: 1rem; color: var(--st-text-color); background: var(--st-background-color);
  border: 1px solid var(--st-border-color); border-radius: var(--st-button-radius, 6px); min-height: 2.1rem; padding: 0 .7rem;
  cursor: pointer; white-space: nowrap } button:hover, button:focus-visible { border-color: var(--st-primary-color);
  color: var(--st-primary-color) }`;
const SHOWN = 1600; // ms that it says so

async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = document.createElement("textarea"); // a page that came without https has no clipboard
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  if (!done) throw new Error("copying is not allowed here");
}

export default function mount({ parentElement }) {
  if (parentElement.querySelector("button")) return;
  const style = document.createElement("style");
  style.textContent = STYLE;
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy link";
  button.title = "Copies the address of exactly this view";
  button.addEventListener("click", async () => {
    try {
      await copy(location.href);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Copy it above"; // in the browser's own field
    }
    setTimeout(() => (button.textContent = "Copy link"), SHOWN);
  });
  parentElement.append(style, button);
}
