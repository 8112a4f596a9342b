"""The page around a report: its style and its parts. Texts are escaped here, unless they are HTML."""

from megatron_trace.report.svg import escape

_CSS = """
:root{color-scheme:light dark;--ink:#1d2530;--soft:#5d6775;--line:#dfe3e8;--card:#fff;--ground:#f3f4f6;
--blue:#2467c9}
@media(prefers-color-scheme:dark){:root{--ink:#e8ebef;--soft:#9aa5b3;--line:#333b46;--card:#191e25;--ground:#101419;
--blue:#6ba5f7}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);-webkit-font-smoothing:antialiased;
font:15px/1.55 Inter,system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,"DejaVu Sans",
sans-serif}
main{max-width:1212px;margin:0 auto;padding:44px 24px 80px}
header p{margin:0;color:var(--soft)}
.eyebrow{font-size:12px;font-weight:650;letter-spacing:.09em;text-transform:uppercase;color:var(--blue)!important}
h1{font-size:34px;line-height:1.2;letter-spacing:-.02em;margin:6px 0 8px;overflow-wrap:anywhere}
h2{font-size:21px;letter-spacing:-.01em;margin:52px 0 4px}
section>p{margin:0 0 16px;color:var(--soft);max-width:62em}
h2+div,h2+details,h2+table{margin-top:16px}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(250px,1fr));gap:16px;margin-top:28px}
.tile{background:var(--card);border-radius:10px;padding:18px 20px;box-shadow:0 0 0 1px var(--line)}
.tile p{margin:0;color:var(--soft);font-size:13px}
.tile .value{color:var(--ink);font-size:27px;font-weight:650;letter-spacing:-.02em;line-height:1.35;
font-variant-numeric:tabular-nums}
.grid{display:grid;gap:16px}
.grid.two{grid-template-columns:repeat(auto-fill,minmax(min(100%,480px),1fr))}
.grid.three{grid-template-columns:repeat(auto-fill,minmax(min(100%,320px),1fr))}
figure{margin:0}
figure svg{display:block;border-radius:10px;box-shadow:0 0 0 1px var(--line)}
.grid figure svg{width:100%;height:auto}
figure.wide{margin:0 0 28px}
figure.wide .scroll{overflow-x:auto;border-radius:10px;padding:1px}
figcaption{margin:0 0 8px;font-size:14px;color:var(--soft)}
details,.events{background:var(--card);border-radius:10px;box-shadow:0 0 0 1px var(--line);padding:12px 20px}
.events{border-collapse:collapse;width:100%}
.events td,.events th{text-align:left;padding:5px 16px;vertical-align:top}
.scroll{overflow-x:auto}
.numbers{background:var(--card);border-radius:10px;box-shadow:0 0 0 1px var(--line);border-collapse:collapse;
width:100%;font-variant-numeric:tabular-nums}
.numbers td,.numbers th{text-align:right;padding:8px 14px;vertical-align:top;white-space:nowrap}
.numbers th{font-size:13px;font-weight:600;color:var(--soft);white-space:normal;vertical-align:bottom}
.numbers tr+tr{border-top:1px solid var(--line)}
.numbers td:first-child,.numbers th:first-child{text-align:left;font-weight:600}
.numbers small{display:block;color:var(--soft);font-size:12px}
.notes{color:var(--soft);font-size:13px;max-width:75em;padding-left:1.2em}
.events td:first-child{color:var(--soft);width:5em;font-variant-numeric:tabular-nums}
summary{cursor:pointer;font-weight:600}pre{overflow-x:auto;font-size:13px;line-height:1.5}
footer{margin-top:56px;color:var(--soft);font-size:13px}
"""


FOOTER = (
    "Pale dots are single steps, their lines running means over five; the band around held-out success is one "
    "standard error."
)


def page(
    title: str, subtitle: str, body: str, *, kind: str = "training report", footer: str = FOOTER
) -> str:
    """The whole document; `body` is HTML."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} · Megatron-TRACE</title><style>{_CSS}</style></head><body><main>"
        f'<header><p class="eyebrow">Megatron-TRACE · {escape(kind)}</p><h1>{escape(title)}</h1>'
        f"<p>{escape(subtitle)}</p></header>{body}"
        f"<footer>{escape(footer)}</footer></main></body></html>\n"
    )


def section(title: str, body: str, text: str = "") -> str:
    """A titled part; `body` is HTML, and without one there is no section."""
    if not body:
        return ""
    return f"<section><h2>{escape(title)}</h2>{f'<p>{escape(text)}</p>' if text else ''}{body}</section>"


def card(name: str, value: str, note: str) -> str:
    """A headline number."""
    lines = f'<p>{escape(name)}</p><p class="value">{escape(value)}</p><p>{escape(note)}</p>'
    return f'<div class="tile">{lines}</div>'


def figure(svg: str, caption: str = "", *, wide: bool = False) -> str:
    """A drawing with its caption above it; a wide one scrolls where the page is narrower."""
    head = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    if wide:
        return f'<figure class="wide">{head}<div class="scroll">{svg}</div></figure>'
    return f"<figure>{head}{svg}</figure>"


def grid(*svgs: str, columns: int = 2) -> str:
    """Drawings side by side; empty ones are left out, and without any there is no grid."""
    figures = "".join(figure(svg) for svg in svgs if svg)
    return (
        f'<div class="grid {"three" if columns == 3 else "two"}">{figures}</div>' if figures else ""
    )
