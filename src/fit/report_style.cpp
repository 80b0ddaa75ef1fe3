#include "fit/report_style.h"

namespace tailor {

std::string_view report_css() {
  static constexpr std::string_view kCss = R"css(
:root{--bg:#fff;--panel:#f5f7f9;--ink:#17202a;--muted:#566270;--line:#dde2e8;--soft:#eef1f4;--accent:#0b5cad;--accent-soft:#e6f0fa;
--on-accent:#fff;--warm:#b4510a;--warm-soft:#fdf0e4;--none:#6a7580;--bad:#a3311f;--bad-soft:#fbeae7;color-scheme:light dark}
@media (prefers-color-scheme:dark){:root{--bg:#12161b;--panel:#1a2027;--ink:#e5e9ee;--muted:#a0acb8;--line:#323b45;--soft:#222a32;--accent:#6fb1f5;
--accent-soft:#16304a;--on-accent:#0b1622;--warm:#f0a05a;--warm-soft:#3a2613;--none:#9aa6b1;--bad:#f2907f;--bad-soft:#3d1e19}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","Noto Sans",Arial,sans-serif}
.page{max-width:1120px;margin:0 auto;padding:0 24px 64px}
header.top{display:flex;flex-wrap:wrap;gap:4px 20px;align-items:baseline;padding:28px 0 14px;border-bottom:1px solid var(--line)}
header.top .brand{font-weight:650;letter-spacing:.01em}
header.top .brand::before{content:"";display:inline-block;width:11px;height:11px;margin-right:9px;border-radius:3px;background:var(--accent)}
header.top .meta{color:var(--muted);font-size:14px;margin-left:auto}
nav{display:flex;flex-wrap:wrap;gap:2px 18px;padding:10px 0;font-size:14px;border-bottom:1px solid var(--line)}
nav a{color:var(--muted);text-decoration:none}
nav a:hover,nav a:focus{color:var(--accent);text-decoration:underline}
a{color:var(--accent)}
h1{font-size:31px;line-height:1.22;font-weight:650;letter-spacing:-.012em;margin:34px 0 12px;max-width:26em;overflow-wrap:anywhere}
h1 .on{color:var(--muted);font-weight:450}
h2{font-size:21px;line-height:1.3;font-weight:640;letter-spacing:-.006em;margin:56px 0 6px;padding-top:4px}
h3{font-size:16px;font-weight:640;margin:30px 0 6px}
p{margin:8px 0;max-width:47em;overflow-wrap:anywhere}
.eyebrow{margin:30px 0 -22px;color:var(--accent);font-size:13px;font-weight:640;letter-spacing:.06em;text-transform:uppercase}
.lead{font-size:17.5px;max-width:43em}
.intro{color:var(--muted)}
.muted{color:var(--muted)}
.hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
ul.plain{padding-left:20px;max-width:46em;margin:8px 0}
ul.plain li{margin:4px 0;overflow-wrap:anywhere}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(158px,1fr));gap:12px;margin:26px 0 8px}
.card{background:var(--panel);border-radius:10px;padding:14px 16px 13px}
.card .k{font-size:13px;color:var(--muted)}
.card .v{font-size:25px;line-height:1.25;font-weight:640;letter-spacing:-.015em;font-variant-numeric:tabular-nums;white-space:nowrap}
.card .d{font-size:13px;color:var(--muted)}
.callout{border-left:3px solid var(--accent);background:var(--accent-soft);padding:10px 16px;border-radius:0 8px 8px 0;margin:14px 0;max-width:47em}
.callout.warn{border-color:var(--warm);background:var(--warm-soft)}
.callout.error{border-color:var(--bad);background:var(--bad-soft)}
.callout p{margin:2px 0}
.scroll{overflow-x:auto;margin:14px 0 8px;border:1px solid var(--line);border-radius:10px}
.scroll.tall{max-height:520px;overflow-y:auto}
.scroll.tall thead th{position:sticky;top:0;z-index:1}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
table{border-collapse:collapse;width:100%;font-size:14px;line-height:1.4;font-variant-numeric:tabular-nums}
th,td{padding:8px 12px;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
tbody:last-child tr:last-child th,tbody:last-child tr:last-child td{border-bottom:0}
thead th{font-size:12.5px;font-weight:600;color:var(--muted);background:var(--panel);white-space:nowrap}
tbody th{font-weight:500}
.num{text-align:right;white-space:nowrap}
th button{font:inherit;color:inherit;background:none;border:0;padding:0;margin:0;cursor:pointer;text-align:inherit}
th button::after{content:"";display:inline-block;width:1em;text-align:right;color:var(--accent)}
th[aria-sort=ascending] button::after{content:"↑"}
th[aria-sort=descending] button::after{content:"↓"}
.compare thead th{white-space:normal;vertical-align:bottom;line-height:1.25}
.compare th,.compare td{padding:9px 9px}
.compare .method{font-weight:640;white-space:nowrap}
.compare .sub{display:block;color:var(--muted);font-size:12.5px;font-weight:400;min-width:11em}
.compare .model{display:block;font-size:13px;font-weight:400;white-space:nowrap}
.compare .chip{min-width:3.2em;text-align:center}
.compare .range{display:block;color:var(--muted);font-size:12px}
.compare tr.recommended th,.compare tr.recommended td{background:var(--accent-soft)}
.compare tr.recommended th:first-child{box-shadow:inset 3px 0 0 var(--accent)}
.compare .left-out td,.compare .left-out th{color:var(--muted);background:var(--bg)}
.compare .left-out .method{font-weight:500}
.reason{overflow-wrap:anywhere}
.badge{display:inline-block;background:var(--accent);color:var(--on-accent);border-radius:99px;padding:1px 9px;font-size:11.5px;font-weight:600;white-space:nowrap}
.chip{display:inline-block;border-radius:99px;padding:1px 9px;font-size:12px;font-weight:600;background:var(--soft);color:var(--ink);white-space:nowrap}
.chip.best{background:var(--accent-soft);color:var(--accent)}
.compare tr.recommended .chip{background:var(--bg)}
.chip.worse,.chip.failed,.chip.error{background:var(--bad-soft);color:var(--bad)}
.chip.warning{background:var(--warm-soft);color:var(--warm)}
sup{font-size:11px;line-height:0;color:var(--muted)}
.footnotes{font-size:13px;color:var(--muted)}
.footnotes p{margin:3px 0;max-width:62em}
.grid2{display:grid;grid-template-columns:repeat(auto-fit,minmax(330px,1fr));gap:12px 36px;align-items:start}
.grid2>*{min-width:0}
@media (min-width:641px){.grid2.two{grid-template-columns:repeat(2,minmax(0,1fr))}}
figure{margin:16px 0}
figcaption{font-size:13px;color:var(--muted);margin-top:6px;max-width:56em}
svg.chart{display:block;width:100%;height:auto;max-width:100%}
svg.chart.fixed{width:auto;max-width:none!important}
.narrow-only{display:none}
svg text{font-family:inherit;fill:var(--ink)}
.grid{stroke:var(--line);stroke-width:1}
.axis{stroke:var(--muted);stroke-width:1}
.axis-dashed{stroke:var(--muted);stroke-width:1;stroke-dasharray:3 3}
.ideal{stroke:var(--muted);stroke-width:1.2;stroke-dasharray:4 4}
.leader{stroke:var(--muted);stroke-width:.8}
svg .tick{font-size:11px;fill:var(--muted)}
svg .tiny{font-size:8.4px}
svg .axis-title{font-size:12px;fill:var(--muted)}
svg .label{font-size:11.5px;paint-order:stroke;stroke:var(--bg);stroke-width:3px;stroke-linejoin:round}
svg .strong{font-weight:650}
.mark{stroke:var(--bg);stroke-width:1.2}
.mark.s-frozen,.swatch.s-frozen{fill:var(--accent)}
.mark.s-trained,.swatch.s-trained{fill:var(--warm)}
.mark.s-none,.swatch.s-none{fill:var(--none)}
.mark.hollow{fill:var(--bg);stroke:var(--muted);stroke-width:1.4}
.whisker{stroke-width:1.6}
.whisker.s-frozen{stroke:var(--accent)}
.whisker.s-trained{stroke:var(--warm)}
.whisker.s-none{stroke:var(--none)}
.ring{fill:none;stroke:var(--ink);stroke-width:1.6}
.curve{fill:none;stroke:var(--accent);stroke-width:2.2;stroke-linejoin:round}
.curve.second{stroke:var(--warm)}
.trace{fill:none;stroke:var(--accent);stroke-opacity:.3;stroke-width:1.1;stroke-linejoin:round}
.bar{fill:var(--accent);fill-opacity:.45}
.heat-field{fill:var(--panel)}
.heat-right{fill:var(--accent)}
.heat-wrong{fill:var(--warm)}
svg .heat-number{font-size:11px}
svg .inverse{fill:var(--on-accent)}
svg.forest{display:block;margin:3px 0 0 auto}
svg.spark{float:right;margin:2px 0 0 12px}
.legend{display:flex;flex-wrap:wrap;gap:4px 20px;font-size:13px;color:var(--muted);margin:8px 0 0}
.legend span{display:inline-flex;align-items:center;gap:6px}
.meter{display:inline-block;width:76px;height:7px;border-radius:4px;background:var(--soft);vertical-align:middle;margin-left:8px;overflow:hidden}
.meter i{display:block;height:100%;background:var(--accent)}
.meter.wide{width:min(320px,40vw)}
details{border:1px solid var(--line);border-radius:10px;margin:10px 0;background:var(--bg)}
summary{cursor:pointer;padding:10px 14px;font-weight:560;font-size:15px;overflow-wrap:anywhere}
summary .muted{font-weight:400}
details>.body{padding:0 14px 12px}
details .scroll{margin-top:4px}
.filter{display:flex;flex-wrap:wrap;gap:10px;align-items:center;margin:12px 0 0;font-size:14px}
.filter input{font:inherit;padding:6px 10px;border:1px solid var(--line);border-radius:8px;background:var(--bg);color:var(--ink);width:min(320px,100%)}
td.label{min-width:9.5em}
td.text{width:40%;min-width:16em;max-width:40em;overflow-wrap:anywhere;white-space:pre-line}
td.wrap{overflow-wrap:anywhere;min-width:9em}
dl.facts{display:grid;grid-template-columns:minmax(130px,max-content) 1fr;gap:6px 22px;font-size:14.5px;margin:12px 0;max-width:62em}
dl.facts dt{color:var(--muted)}
dl.facts dd{margin:0;overflow-wrap:anywhere}
pre,code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:13px}
pre{background:var(--panel);border-radius:8px;padding:12px 14px;overflow-x:auto;white-space:pre-wrap;overflow-wrap:anywhere;margin:8px 0}
footer{margin-top:64px;padding-top:14px;border-top:1px solid var(--line);font-size:13px;color:var(--muted)}
@media (max-width:640px){body{font-size:15.5px}.page{padding:0 16px 48px}h1{font-size:25px}h2{font-size:19.5px;margin-top:44px}
.cards{grid-template-columns:repeat(2,minmax(0,1fr));gap:8px}.card{padding:11px 12px}.card .v{font-size:20px}
.wide-only{display:none}.narrow-only{display:block}.grid2{grid-template-columns:minmax(0,1fr)}
header.top .meta{margin-left:0}dl.facts{grid-template-columns:1fr;gap:0}dl.facts dd{margin-bottom:8px}
th,td,.compare th,.compare td{padding:7px 9px}td.text{min-width:13em}}
@media print{:root{--bg:#fff;--panel:#f5f7f9;--ink:#000;--muted:#444;--line:#ccc;--soft:#eee;--accent:#0b5cad;--accent-soft:#e6f0fa;--on-accent:#fff;--warm:#b4510a;--warm-soft:#fdf0e4;--none:#666;color-scheme:light}
body{font-size:10.5pt}.page{max-width:none;padding:0}nav,.filter{display:none}.scroll,.scroll.tall{overflow:visible;max-height:none;border:0}
table{font-size:8pt}.compare th,.compare td{padding:3px 4px}.compare .sub{min-width:0}svg.forest{display:none}
h2{break-after:avoid}figure,.card,.callout,tr{break-inside:avoid}*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
)css";
  return kCss;
}

std::string_view report_script() {
  static constexpr std::string_view kScript = R"js(
(function () {
  "use strict";
  function key(row, at) {
    var cell = row.cells[at];
    if (!cell) return "";
    var value = cell.getAttribute("data-v");
    return value === null ? cell.textContent.trim().toLowerCase() : parseFloat(value);
  }
  document.querySelectorAll("table.sortable").forEach(function (table) {
    var body = table.tBodies[0];
    Array.prototype.forEach.call(table.tHead.rows[0].cells, function (head, at) {
      var button = document.createElement("button");
      button.type = "button";
      button.title = "Sort by this column";
      while (head.firstChild) button.appendChild(head.firstChild);
      head.appendChild(button);
      button.addEventListener("click", function () {
        var numeric = head.className.indexOf("num") !== -1;
        var up = numeric ? head.getAttribute("aria-sort") === "descending" : head.getAttribute("aria-sort") !== "ascending";
        Array.prototype.forEach.call(table.tHead.rows[0].cells, function (other) { other.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        Array.prototype.slice.call(body.rows).map(function (row, i) { return { row: row, key: key(row, at), i: i }; })
          .sort(function (a, b) {
            if (a.key === b.key) return a.i - b.i;
            return (a.key > b.key ? 1 : -1) * (up ? 1 : -1);
          })
          .forEach(function (item) { body.appendChild(item.row); });
      });
    });
  });
  document.querySelectorAll("[data-filter]").forEach(function (box) {
    var table = document.getElementById(box.getAttribute("data-filter"));
    var label = document.createElement("label");
    label.textContent = "Show rows with ";
    var input = document.createElement("input");
    input.type = "search";
    input.placeholder = "a word or a label";
    label.appendChild(input);
    var count = document.createElement("span");
    count.className = "muted";
    count.setAttribute("aria-live", "polite");
    box.appendChild(label);
    box.appendChild(count);
    input.addEventListener("input", function () {
      var word = input.value.trim().toLowerCase(), shown = 0;
      Array.prototype.forEach.call(table.tBodies[0].rows, function (row) {
        var hit = row.textContent.toLowerCase().indexOf(word) !== -1;
        row.hidden = !hit;
        if (hit) shown += 1;
      });
      count.textContent = word === "" ? "" : shown + " shown";
    });
  });
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details[data-print]").forEach(function (part) { part.open = true; });
  });
}());
)js";
  return kScript;
}

}  // namespace tailor
