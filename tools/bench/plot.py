#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""plot.py: horizontal bars in an SVG, for what the benchmarks print.

    plot.py OUT.svg --title TITLE [--note NOTE] [--unit UNIT] [--log] [--line VALUE] <ROWS

ROWS are JSON lines, {"row": "create, 1 thread", "series": "mount", "value": 1.2, "min": 1.0,
"max": 1.4, "aim": 1.0}: a bar for each series in each row, in the order they first come, a
whisker from min to max and, where there is an aim, a mark. min, max and aim may be missing.
Needs nothing but Python.
"""

import argparse
import html
import json
import math
import sys

COLOURS = ["#1f77b4", "#ff7f0e", "#7f7f7f", "#2ca02c", "#9467bd", "#8c564b", "#d62728", "#17becf"]
LABEL, WIDTH, RIGHT, BAR, GAP, TOP = 230, 560, 90, 9, 9, 78


def ticks(low, high, log):
    if log:
        steps = [m * 10.0 ** e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
                 for m in (1, 2, 5)]
    else:
        step = 10.0 ** math.floor(math.log10((high - low) / 4))
        step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= 6)
        steps = [i * step for i in range(int(high / step) + 2)]
    return [s for s in steps if low <= s <= high]


def number(v):
    return f"{v:.3g}" if v < 1000 else f"{v / 1000:.3g}k" if v < 1e6 else f"{v / 1e6:.3g}M"


class Picture:
    def __init__(self, rows, args):
        self.args = args
        self.rows = list(dict.fromkeys(r["row"] for r in rows))
        self.series = list(dict.fromkeys(r["series"] for r in rows))
        self.at = {(r["row"], r["series"]): r for r in rows}
        values = [v for r in rows for v in (r["value"], r.get("min"), r.get("max"), r.get("aim"))
                  if v is not None and (v > 0 or not args.log)]
        values += [args.line] if args.line is not None else []
        self.low = min(values) / 1.15 if args.log else 0.0
        self.high = max(values) * (1.15 if args.log else 1.05)
        self.out = []

    def x(self, v):
        if self.args.log:
            v = max(v, self.low)
            share = math.log(v / self.low) / math.log(self.high / self.low)
        else:
            share = (v - self.low) / (self.high - self.low)
        return LABEL + WIDTH * share

    def put(self, kind, text=None, **attributes):
        inside = " ".join(f'{k.replace("_", "-")}="{v:.1f}"' if isinstance(v, float) else
                          f'{k.replace("_", "-")}="{v}"' for k, v in attributes.items())
        self.out.append(f"<{kind} {inside}/>" if text is None else
                        f"<{kind} {inside}>{html.escape(text)}</{kind}>")

    def legend(self):
        x = LABEL
        for i, name in enumerate(self.series):
            self.put("rect", x=x, y=TOP - 26, width=10, height=10, fill=COLOURS[i % len(COLOURS)])
            self.put("text", name, x=x + 14, y=TOP - 17)
            x += 26 + 7 * len(name)
        if any(r.get("aim") is not None for r in self.at.values()):
            self.put("path", d=f"M{x} {TOP - 28}v14", stroke="black", stroke_width=2)
            self.put("text", "aim", x=x + 6, y=TOP - 17)

    def row(self, name, y):
        bars = [s for s in self.series if (name, s) in self.at]
        height = len(bars) * BAR
        self.put("text", name, x=LABEL - 8, y=y + height / 2 + 4, text_anchor="end")
        for k, series in enumerate(bars):
            r = self.at[name, series]
            top, x0, x1 = y + k * BAR, self.x(self.low), self.x(r["value"])
            self.put("rect", x=x0, y=float(top), width=max(x1 - x0, 1.0), height=BAR - 1,
                     fill=COLOURS[self.series.index(series) % len(COLOURS)])
            end = x1
            if r.get("min") is not None and r.get("max") is not None and r["max"] > r["min"]:
                end = self.x(r["max"])
                self.put("path", d=f"M{self.x(r['min']):.1f} {top + (BAR - 1) / 2}H{end:.1f}",
                         stroke="#444", stroke_width=1)
            self.put("text", number(r["value"]), x=end + 4, y=top + BAR - 2.0, font_size=8, fill="#555")
        aim = next((self.at[name, s].get("aim") for s in bars if self.at[name, s].get("aim")), None)
        if aim is not None:
            self.put("path", d=f"M{self.x(aim):.1f} {y - 2}v{height + 3}", stroke="black", stroke_width=2)
        return y + height + GAP

    def draw(self):
        heights = [sum((n, s) in self.at for s in self.series) * BAR + GAP for n in self.rows]
        bottom = TOP + sum(heights)
        self.put("rect", width="100%", height="100%", fill="white")
        self.put("text", self.args.title, x=12, y=22, font_size=15, font_weight="bold")
        self.put("text", self.args.note, x=12, y=40, fill="#555")
        self.legend()
        for v in ticks(self.low, self.high, self.args.log):
            self.put("path", d=f"M{self.x(v):.1f} {TOP - 6}V{bottom}", stroke="#e4e4e4")
            self.put("text", number(v), x=self.x(v), y=bottom + 14, text_anchor="middle", fill="#555")
        if self.args.line is not None:
            self.put("path", d=f"M{self.x(self.args.line):.1f} {TOP - 6}V{bottom}", stroke="#999",
                     stroke_dasharray="4 3")
        self.put("text", self.args.unit, x=LABEL + WIDTH / 2, y=bottom + 30, text_anchor="middle")
        y = TOP
        for name in self.rows:
            y = self.row(name, y)
        width, height = LABEL + WIDTH + RIGHT, bottom + 42
        return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
                f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">\n'
                + "\n".join(self.out) + "\n</svg>\n")


def main():
    parser = argparse.ArgumentParser(description="bars in an SVG; JSON lines on standard input")
    parser.add_argument("out")
    parser.add_argument("--title", required=True)
    parser.add_argument("--note", default="")
    parser.add_argument("--unit", default="")
    parser.add_argument("--log", action="store_true", help="a logarithmic axis")
    parser.add_argument("--line", type=float, help="a line at this value")
    args = parser.parse_args()
    rows = [json.loads(line) for line in sys.stdin if line.strip()]
    if not rows:
        sys.exit("plot.py: nothing to draw")
    with open(args.out, "w", encoding="utf-8") as f:
        f.write(Picture(rows, args).draw())


if __name__ == "__main__":
    main()
