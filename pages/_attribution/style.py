"""How the page is laid out."""

STYLE = """<style>
.verdict { font-size: .92rem; line-height: 1.45; padding: .5rem .8rem; border-radius: 8px;
  border-left: 3px solid var(--st-primary-color, #0b6e99);
  background: color-mix(in srgb, currentColor 5%, transparent) }
.verdict b { font-size: 1.02rem }
.verdict span { opacity: .72 }
.method { font-size: .8rem; line-height: 1.4 }
.method span { opacity: .72 }
.method a { color: inherit; opacity: .72 }
.figures { width: 100%; border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums }
.figures th { font-weight: 400; text-align: right; padding: 0 0 .2rem .7rem; font-size: .74rem;
  vertical-align: bottom }
.figures td { text-align: right; padding: .16rem 0 .16rem .7rem; white-space: nowrap;
  border-top: 1px solid color-mix(in srgb, currentColor 12%, transparent) }
.figures th:first-child, .figures td:first-child { text-align: left; padding-left: 0 }
.figures td:last-child { opacity: .66 }
.figures i { display: block; width: 18px; margin: 0 0 4px auto; border-top: 2px solid }
.figures i.second { border-top-style: dashed }
@media (max-width: 1100px) {
.st-key-attribution-tested > [data-testid=stLayoutWrapper] > [data-testid=stHorizontalBlock] { flex-wrap: wrap }
.st-key-attribution-tested > [data-testid=stLayoutWrapper] > [data-testid=stHorizontalBlock] >
  [data-testid=stColumn] { min-width: 100% }
}
.st-key-attribution button { min-height: 1.75rem; padding-block: 0 }
.st-key-attribution button p { font-size: .82rem }
.st-key-attribution [data-testid=stVerticalBlock] { gap: .55rem }
</style>"""
