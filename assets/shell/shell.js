// A button that copies the address of what is shown; and a sentence for each term, which the browser shows on hover.

const STYLE = `button { font: inherit; font-size: 1rem; color: var(--st-text-color); background: var(--st-background-color);
  border: 1px solid var(--st-border-color); border-radius: var(--st-button-radius, 6px); min-height: 2.1rem; padding: 0 .7rem;
  cursor: pointer; white-space: nowrap } button:hover, button:focus-visible { border-color: var(--st-primary-color);
  color: var(--st-primary-color) }`;
const SHOWN = 1600; // ms that it says so
const TERMS = "[data-testid=stButtonGroup] button, [data-testid=stWidgetLabel], [data-testid=stCheckbox]";
const COUNT = /\s[\d,.]+\s?%?$/; // behind a term: "induction 4"

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

function button() {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = "Copy link";
  made.title = "Copies the address of exactly this view";
  made.addEventListener("click", async () => {
    try {
      await copy(location.href);
      made.textContent = "Copied";
    } catch {
      made.textContent = "Copy it above"; // in the browser's own field
    }
    setTimeout(() => (made.textContent = "Copy link"), SHOWN);
  });
  return made;
}

/** Give every term that stands on the page its sentence, now and whenever something new is drawn. */
function explain(terms) {
  for (const element of document.querySelectorAll(TERMS)) {
    if (element.title && element.explained === element.textContent) continue;
    const name = element.textContent.trim();
    const token = element.closest(".st-key-next"); // whose names are the model's tokens, and no terms
    const said = token ? terms.next : (terms[name] ?? terms[name.replace(COUNT, "")]);
    if (said) element.title = said;
    element.explained = element.textContent;
  }
}

export default function mount({ parentElement, data }) {
  const page = window;
  page.headwiseTerms = data.terms;
  if (!page.headwiseWatch) {
    let asked = false;
    page.headwiseWatch = new MutationObserver(() => {
      if (asked) return;
      asked = true;
      requestAnimationFrame(() => ((asked = false), explain(page.headwiseTerms)));
    });
    page.headwiseWatch.observe(document.body, { childList: true, subtree: true, characterData: true });
  }
  explain(data.terms);
  if (parentElement.querySelector("button")) return;
  const style = document.createElement("style");
  style.textContent = STYLE;
  parentElement.append(style, button());
}
