// Zooming and pointing on the time axis. The page says everything without it.
(function () {
  "use strict";
  const data = document.getElementById("marks");
  const svg = document.querySelector("svg.timeline");
  if (window.innerWidth < 640) for (const plan of document.querySelectorAll(".plan")) plan.open = false;
  if (!data || !svg) return;
  const run = JSON.parse(data.textContent);
  const marks = run.marks || [];
  const { left, right } = run;
  const whole = [run.begin, run.end];
  let view = whole.slice();
  document.documentElement.classList.add("scripted");

  const atTime = (t) => left + (t - view[0]) / (view[1] - view[0]) * (right - left);
  const timeAt = (x) => view[0] + (x - left) / (right - left) * (view[1] - view[0]);
  const moved = (x) => atTime(run.begin + (x - left) / (right - left) * (run.end - run.begin));
  const show = (element, yes) => { element.style.display = yes ? "" : "none"; };

  // What the server laid out for the whole run; a zoom maps it anew.
  const laid = [];
  for (const element of svg.querySelectorAll(".zoomed rect, .zoomed line, .zoomed text, .zoomed path")) {
    const number = (name) => parseFloat(element.getAttribute(name));
    laid.push({
      element, kind: element.tagName, x: number("x"), width: number("width"), x1: number("x1"), from: number("data-from"), until: number("data-until"),
      anchor: element.getAttribute("text-anchor"), start: element.tagName === "path" ? parseFloat(element.getAttribute("d").slice(1)) + 4 : 0,
    });
  }
  const place = {
    rect(e) {
      const from = Math.max(moved(e.x), left - 1), to = Math.min(moved(e.x + e.width), right + 1);
      show(e.element, to > left && from < right);
      e.element.setAttribute("x", from);
      e.element.setAttribute("width", Math.max(to - from, Math.min(e.width, 1.5)));
    },
    line(e) {
      const x = moved(e.x1);
      show(e.element, x >= left - 1 && x <= right + 1);
      e.element.setAttribute("x1", x);
      e.element.setAttribute("x2", x);
    },
    text(e) {
      if (e.until) { // names something that lasts: stays in sight as long as that does
        const x = Math.max(moved(e.from) + e.x - e.from, left + 4);
        e.element.setAttribute("x", x);
        show(e.element, x < right - 20 && (moved(e.until) > x + 20 || moved(e.from) > left));
        return;
      }
      const x = moved(e.x);
      e.element.setAttribute("x", x);
      show(e.element, x >= left - 1 && x <= right + 1);
      const beyond = x + e.element.getComputedTextLength() > right + 12;
      e.element.setAttribute("text-anchor", beyond ? "end" : e.anchor === "end" && x < left + 200 ? "start" : e.anchor);
    },
    path(e) {
      e.element.setAttribute("transform", "translate(" + (moved(e.start) - e.start) + ")");
    },
  };
  const signs = [
    (x, y) => "M" + (x - 2) + " " + (y - 2) + "h4v4h-4z",
    (x, y) => "M" + x + " " + y + "h0",
    (x, y) => "M" + (x - 3) + " " + (y - 3) + "l6 6m0-6l-6 6",
    (x, y) => "M" + x + " " + (y - 7) + "l7 7l-7 7l-7-7z",
  ];
  const paths = svg.querySelectorAll(".marks path");
  const ticks = svg.querySelector(".ticks");
  const firstLine = ticks.querySelector("line"), firstText = ticks.querySelector("text");

  function drawTicks() {
    let step = 1e-6;
    for (let unit = 1e-6; (view[1] - view[0]) / step > 14; unit *= 10) {
      for (const times of [1, 2, 5]) if ((view[1] - view[0]) / (step = unit * times) <= 14) break;
    }
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    ticks.replaceChildren();
    for (let i = Math.ceil(view[0] / step - 1e-9); i * step <= view[1]; i++) {
      const line = firstLine.cloneNode(), text = firstText.cloneNode();
      line.setAttribute("x1", atTime(i * step));
      line.setAttribute("x2", atTime(i * step));
      text.setAttribute("x", atTime(i * step));
      text.textContent = (i * step).toFixed(digits) + " s";
      ticks.append(line, text);
    }
  }

  function zoom(from, to) {
    const least = 1e-4; // s
    if (to - from < least) { const middle = (from + to) / 2; from = middle - least / 2; to = middle + least / 2; }
    view = [Math.max(from, whole[0]), Math.min(to, whole[1])];
    const all = view[0] <= whole[0] && view[1] >= whole[1];
    for (const e of laid) place[e.kind](e);
    const d = ["", "", "", ""];
    for (const m of marks) {
      const x = moved(m[0]);
      if (x >= left - 8 && x <= right + 8) d[m[2]] += signs[m[2]](x.toFixed(1), m[1]);
    }
    paths.forEach((path, kind) => path.setAttribute("d", d[kind]));
    if (firstLine && firstText) drawTicks();
    for (const b of needZoom) b.disabled = all;
  }

  const toolbar = document.createElement("div");
  toolbar.className = "toolbar";
  const needZoom = [];
  function button(text, onlyZoomed, act) {
    const b = document.createElement("button");
    b.type = "button";
    b.textContent = text;
    b.addEventListener("click", act);
    if (onlyZoomed) { needZoom.push(b); b.disabled = true; }
    toolbar.append(b);
  }
  const span = () => view[1] - view[0];
  button("Whole run", true, () => zoom(whole[0], whole[1]));
  button("Zoom in", false, () => zoom(view[0] + span() / 4, view[1] - span() / 4));
  button("Zoom out", true, () => zoom(view[0] - span() / 2, view[1] + span() / 2));
  button("◀ Earlier", true, () => { const by = Math.min(span() / 2, view[0] - whole[0]); zoom(view[0] - by, view[1] - by); });
  button("Later ▶", true, () => { const by = Math.min(span() / 2, whole[1] - view[1]); zoom(view[0] + by, view[1] + by); });
  if (run.at >= 0) {
    button("The violation", false, () => {
      let from = run.at, to = run.at;
      for (const m of marks) if (m[2] === 3) {
        const t = run.begin + (m[0] - left) / (right - left) * (run.end - run.begin);
        if (Math.abs(t - run.at) < 2) { from = Math.min(from, t); to = Math.max(to, t); }
      }
      const margin = Math.max((to - from) * 0.3, 0.1);
      zoom(from - margin, to + margin);
    });
  }
  svg.closest(".scroll").before(toolbar);

  function pointOf(event) {
    return new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  }
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);
  function point(event) {
    const p = pointOf(event);
    let nearest = null, best = 81;
    for (const m of marks) {
      const dx = moved(m[0]) - p.x, dy = m[1] - p.y, distance = dx * dx + dy * dy - (m[2] === 3 ? 30 : 0);
      if (distance < best) { best = distance; nearest = m; }
    }
    tip.hidden = !nearest;
    if (!nearest) return;
    tip.textContent = nearest[3];
    tip.style.left = Math.max(4, Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8)) + "px";
    tip.style.top = Math.max(4, Math.min(event.clientY + 14, window.innerHeight - tip.offsetHeight - 8)) + "px";
  }
  let start = null, selection = null;
  svg.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "mouse" || event.button !== 0 || pointOf(event).x < left) return;
    start = pointOf(event).x;
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", (event) => {
    if (start === null) return point(event);
    tip.hidden = true;
    const x = Math.min(Math.max(pointOf(event).x, left), right);
    if (!selection) {
      selection = document.createElementNS(svg.namespaceURI, "rect");
      selection.setAttribute("class", "selecting");
      selection.setAttribute("y", 0);
      selection.setAttribute("height", svg.viewBox.baseVal.height);
      svg.append(selection);
    }
    selection.setAttribute("x", Math.min(x, start));
    selection.setAttribute("width", Math.abs(x - start));
  });
  function finish(event) {
    if (start === null) return;
    const end = Math.min(Math.max(pointOf(event).x, left), right);
    if (selection) selection.remove();
    if (event.type === "pointerup" && Math.abs(end - start) > 5) zoom(timeAt(Math.min(start, end)), timeAt(Math.max(start, end)));
    start = selection = null;
  }
  svg.addEventListener("pointerup", finish);
  svg.addEventListener("pointercancel", finish);
  svg.addEventListener("pointerleave", () => { tip.hidden = true; });
  svg.addEventListener("dblclick", () => zoom(whole[0], whole[1]));
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") zoom(whole[0], whole[1]); });
})();
