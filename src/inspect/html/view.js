// Draws the plan that lies in #data. What is drawn is what is visible: levels are columns of one width, so the visible
// ones are known without a search. State that can be shared stands in the location's hash:
// #search=TEXT  #op=LABEL  #hover=LABEL  #level=NUMBER  #zoom=PIXELS  #fit  #dark  #light, joined by `&`.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  let errors = 0;
  const root = document.documentElement;
  root.dataset.errors = "0";
  addEventListener("error", () => { root.dataset.errors = String(++errors); });

  // ---- the plan ----

  const raw = JSON.parse(byId("data").textContent);
  const text = (number) => (number < 0 ? "" : raw.texts[number]);
  const buffers = raw.buffers.map(([label, kind, bytes, rest], id) =>
    ({ id, label: text(label), kind: text(kind), bytes, rest: text(rest), values: [], lane: -1 }));
  const kernels = raw.kernels.map(([label, size, ports]) => ({ label: text(label), size, ports: ports.map(text) }));
  const values = raw.values.map(([path, of, buffer, offset, bytes, [first, last]]) =>
    ({ path: text(path), of: text(of), buffer: buffers[buffer], offset, bytes, first, last, lane: 0, writers: [], readers: [] }));
  const levels = Array.from({ length: raw.levels }, () => ({ commands: [], transitions: [] }));
  const leave = { commands: [], transitions: [] };
  const commands = raw.commands.map(([level, label, kernel, place, groups, ports], id) => {
    const of = kernels[kernel];
    const names = of ? of.ports : ["from", "to"];
    const command = {
      id, level, row: levels[level].commands.length, label: text(label), kernel: of ? of.label : "copy", of, groups,
      place: text(place), into: [], outof: [],
      ports: ports.map(([buffer, offset, bytes, mode, value], nth) =>
        ({ name: names[nth], buffer: buffers[buffer], offset, bytes, mode, value: value < 0 ? null : values[value] })),
    };
    levels[level].commands.push(command);
    for (const port of command.ports) {
      if (!port.value) continue;
      if (port.mode & 2) port.value.writers.push(command);
      if (port.mode & 1) port.value.readers.push(command);
    }
    return command;
  });
  const transitions = raw.transitions.map(([level, buffer, from, to, hazard, beforeKind, before, afterKind, after, verbs]) => {
    const transition = {
      level, buffer: buffers[buffer], from: text(from), to: text(to), hazard: text(hazard), beforeKind, afterKind,
      before: before < 0 ? null : commands[before], after: after < 0 ? null : commands[after],
      wrote: (verbs & 1) !== 0, writes: (verbs & 2) !== 0, path: null,
    };
    (level < levels.length ? levels[level] : leave).transitions.push(transition);
    if (transition.after && transition.afterKind === 0) transition.after.into.push(transition);
    if (transition.before) transition.before.outof.push(transition);
    return transition;
  });
  values.forEach((value) => value.buffer.values.push(value));
  const lanes = buffers.filter((buffer) => buffer.kind === "slot");
  // A slot has as many lanes as values live in it at once, the lower in memory above where both are free.
  let laneCount = 0;
  for (const slot of lanes) {
    const ends = [];
    slot.lane = laneCount;
    for (const value of [...slot.values].sort((a, b) => a.first - b.first || a.offset - b.offset)) {
      const free = ends.findIndex((end) => end < value.first);
      const lane = free < 0 ? ends.length : free;
      ends[lane] = value.last;
      value.lane = laneCount + lane;
    }
    slot.lanes = Math.max(1, ends.length);
    laneCount += slot.lanes;
  }

  // Runs of levels whose commands share the first word of their paths, as in a layer's.
  const parts = [];
  levels.forEach((level, number) => {
    level.hazards = ["RAW", "WAR", "WAW", "RAR"].map((hazard) => [hazard, level.transitions.filter((transition) => transition.hazard === hazard).length]);
    const counts = new Map();
    for (const { label } of level.commands) {
      const dot = label.indexOf(".");
      const word = dot > 0 ? label.slice(0, dot) : "";
      counts.set(word, (counts.get(word) || 0) + 1);
    }
    let best = "", most = 0;
    const before = parts[parts.length - 1];
    for (const [word, count] of counts) {
      if (count > most || count === most && before && before.name === word) { best = word; most = count; }
    }
    if (before && before.name === best) before.last = number;
    else parts.push({ name: best, first: number, last: number });
  });
  // A level inside a layer whose commands go by another word is the layer's all the same.
  for (let nth = 1; nth + 1 < parts.length;) {
    if (parts[nth - 1].name && parts[nth - 1].name === parts[nth + 1].name) {
      parts[nth - 1].last = parts[nth + 1].last;
      parts.splice(nth, 2);
    } else {
      nth++;
    }
  }

  // Kernels by name without their formats share a colour.
  const family = (label) => label.split(".")[0];
  const families = [...new Set(commands.map((command) => family(command.kernel)))].sort();
  const hue = new Map(families.map((name, nth) => [name, Math.round(nth * 137.508 + 205) % 360]));
  const tints = new Map();
  function tint(name, alpha = 1) {
    const key = `${name} ${alpha}`;
    if (!tints.has(key)) tints.set(key, `hsl(${hue.get(family(name)) ?? 0} ${dark() ? "48% 62%" : "46% 47%"} / ${alpha})`);
    return tints.get(key);
  }

  // ---- what is shown ----

  const HEAD = 40, GAP = 30;
  const MIN_WIDTH = 0.5, MAX_WIDTH = 420;
  const view = { x: 0, y: 0, width: 168 };
  const shown = { RAW: true, WAR: true, WAW: true, RAR: true };
  let picked = null, hovered = null, matches = [], match = -1, colours = {};
  const canvas = byId("plan"), map = byId("map");
  const pen = canvas.getContext("2d"), mapPen = map.getContext("2d");
  const rows = Math.max(1, ...levels.map((level) => level.commands.length));
  // Rows and lanes take the room that there is, between a least and a largest height.
  let ROW = 34, BOX = 26, LANE = 17, lanesTop = 0, height = 0;
  function layOut() {
    const least = HEAD + rows * 34 + GAP + laneCount * 17 + 20;
    const more = clamp(canvas.clientHeight / least, 1, 1.4);
    [ROW, BOX, LANE] = [Math.floor(34 * more), Math.floor(26 * more), Math.floor(17 * more)];
    lanesTop = HEAD + rows * ROW + GAP;
    height = lanesTop + laneCount * LANE + 20;
  }
  const dark = () => root.classList.contains("dark");
  const clamp = (value, low, high) => Math.max(low, Math.min(high, value));
  const size = (of) => ({ w: of.clientWidth, h: of.clientHeight });
  const total = () => (levels.length + 1) * view.width;

  function readColours() {
    tints.clear();
    const style = getComputedStyle(root);
    for (const name of ["paper", "panel", "line", "ink", "soft", "faint", "band", "box", "edge", "pick", "glow"]) {
      colours[name] = style.getPropertyValue(`--${name}`).trim();
    }
    for (const name of ["RAW", "WAR", "WAW", "RAR"]) {
      colours[name] = style.getPropertyValue(`--${name.toLowerCase()}`).trim();
    }
  }

  let asked = false;
  function redraw() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; draw(); });
  }

  function bound() {
    layOut();
    const { w, h } = size(canvas);
    view.width = clamp(view.width, Math.min(MIN_WIDTH, w / (levels.length + 1)), MAX_WIDTH);
    view.x = clamp(view.x, 0, Math.max(0, total() - w));
    view.y = clamp(view.y, 0, Math.max(0, height - h));
  }

  function zoom(by, at = size(canvas).w / 2) {
    const level = (view.x + at) / view.width;
    view.width *= by;
    bound();
    view.x = level * view.width - at;
    bound();
    redraw();
  }

  function fit() {
    view.x = view.y = 0;
    view.width = size(canvas).w / (levels.length + 1);
    bound();
    redraw();
  }

  function goTo(level, isGentle = false) {
    const { w } = size(canvas);
    const left = level * view.width - view.x;
    if (!isGentle || left < view.width || left > w - 2 * view.width) view.x = (level + 0.5) * view.width - w / 2;
    bound();
    redraw();
  }

  // ---- drawing ----

  function fitCanvas(of, pen) {
    const scale = devicePixelRatio || 1, { w, h } = size(of);
    if (of.width !== Math.round(w * scale) || of.height !== Math.round(h * scale)) {
      of.width = Math.round(w * scale);
      of.height = Math.round(h * scale);
    }
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, w, h);
    return { w, h };
  }

  const FONT = 'system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif';
  // The room between a column's edge and its boxes, where arrows and barriers lie.
  const lead = () => clamp(view.width * 0.24, 0, 46);
  const boxLeft = (level) => level * view.width + lead() - view.x;
  const boxWidth = () => Math.max(0.6, view.width - lead() - Math.min(4, view.width * 0.08));
  const boxTop = (row) => HEAD + row * ROW + 4 - view.y;
  const boxMiddle = (command) => boxTop(command.row) + BOX / 2;

  // A text cut to a width: the end of a path tells more than its beginning.
  function write(words, x, y, room) {
    if (room < 14) return;
    let shown = words;
    if (pen.measureText(shown).width > room) {
      let low = 0, high = words.length;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (pen.measureText("…" + words.slice(middle)).width > room) low = middle + 1; else high = middle;
      }
      shown = low >= words.length - 1 ? "" : "…" + words.slice(low);
    }
    pen.fillText(shown, x, y);
  }

  // A layer's name, or its number where there is no room for more.
  function shortened(pen, name, room) {
    const digits = name.match(/\d+$/);
    return digits && pen.measureText(name).width > room ? digits[0] : name;
  }

  function visible() {
    const { w } = size(canvas);
    return [clamp(Math.floor(view.x / view.width), 0, levels.length), clamp(Math.floor((view.x + w) / view.width), 0, levels.length)];
  }

  function draw() {
    const { w, h } = fitCanvas(canvas, pen);
    const [first, last] = visible();
    pen.textBaseline = "middle";
    drawColumns(first, last, h);
    drawLanes(first, last, w, h);
    pen.save();
    pen.beginPath();
    pen.rect(0, HEAD, w, Math.max(0, Math.min(h, lanesTop - GAP + 8 - view.y) - HEAD));
    pen.clip();
    drawTransitions(first, last);
    for (let number = first; number <= Math.min(last, levels.length - 1); number++) {
      for (const command of levels[number].commands) drawBox(command);
    }
    drawPickedTransitions();
    pen.restore();
    drawHead(first, last, w);
    drawMap(first, last);
    byId("range").textContent = first >= levels.length ? "leave" : `levels ${first} to ${Math.min(last, levels.length - 1)} of ${levels.length}`;
  }

  function drawColumns(first, last, h) {
    for (const [nth, part] of parts.entries()) {
      if (part.last < first || part.first > last || nth % 2 === 0) continue;
      pen.fillStyle = colours.band;
      pen.fillRect(part.first * view.width - view.x, 0, (part.last - part.first + 1) * view.width, h);
    }
    if (view.width >= 14) {
      pen.strokeStyle = colours.line;
      pen.lineWidth = 1;
      pen.beginPath();
      for (let number = first; number <= last; number++) {
        const x = Math.round(number * view.width - view.x) + 0.5;
        pen.moveTo(x, HEAD);
        pen.lineTo(x, h);
      }
      pen.globalAlpha = 0.6;
      pen.stroke();
      pen.globalAlpha = 1;
    }
    if (picked && picked.kind === "level") {
      pen.fillStyle = colours.glow;
      pen.globalAlpha = 0.5;
      pen.fillRect(picked.level * view.width - view.x, 0, view.width, h);
      pen.globalAlpha = 1;
    }
  }

  function drawHead(first, last, w) {
    pen.fillStyle = colours.panel;
    pen.fillRect(0, 0, w, HEAD);
    pen.strokeStyle = colours.line;
    pen.beginPath();
    pen.moveTo(0, HEAD - 0.5);
    pen.lineTo(w, HEAD - 0.5);
    pen.stroke();
    pen.textAlign = "left";
    for (const part of parts) {
      if (part.last < first || part.first > last) continue;
      const left = Math.max(0, part.first * view.width - view.x), right = Math.min(w, (part.last + 1) * view.width - view.x);
      if (part.first > first) {
        pen.fillStyle = colours.edge;
        pen.fillRect(Math.round(left), 3, 1, 14);
      }
      pen.fillStyle = colours.ink;
      pen.font = `600 11.5px ${FONT}`;
      write(shortened(pen, part.name, right - left - 8), left + 6, 11, right - left - 8);
    }
    // As many numbers as fit.
    let step = 1;
    for (const factor of [2, 5, 10, 20, 50, 100, 200, 500]) if (step * view.width < 34) step = factor;
    for (let number = first; number <= last; number++) {
      if (number % step && number !== levels.length) continue;
      const x = number * view.width - view.x, isLeave = number === levels.length;
      if (isLeave && view.width < 34) continue;
      const count = (isLeave ? leave : levels[number]).transitions.length;
      pen.font = `11px ${FONT}`;
      pen.fillStyle = colours.soft;
      const name = isLeave ? "leave" : String(number);
      pen.fillText(name, x + 6, 29);
      if (view.width >= 90 && count) {
        pen.fillStyle = colours.faint;
        pen.textAlign = "right";
        pen.fillText(`${count} transition${count === 1 ? "" : "s"}`, x + view.width - 6, 29);
        pen.textAlign = "left";
      }
    }
  }

  function isLit(command) {
    if (!picked) return false;
    return picked.kind === "command" && picked.command === command
      || picked.kind === "value" && (picked.value.writers.includes(command) || picked.value.readers.includes(command))
      || picked.kind === "transition" && (picked.transition.before === command || picked.transition.after === command);
  }

  function drawBox(command) {
    const x = boxLeft(command.level), y = boxTop(command.row), width = boxWidth();
    if (y > size(canvas).h || y + BOX < HEAD) return;
    const isMatch = command.isMatch, lit = isLit(command), over = hovered && hovered.command === command;
    if (view.width < 22) {
      pen.fillStyle = isMatch || lit ? colours.pick : tint(command.kernel, 0.85);
      pen.fillRect(x, y, Math.max(width, isMatch || lit ? 2 : 0.6), BOX);
      return;
    }
    pen.beginPath();
    pen.roundRect(x, y, width, BOX, 4);
    pen.fillStyle = isMatch ? colours.glow : colours.box;
    pen.fill();
    pen.strokeStyle = lit || over ? colours.pick : colours.edge;
    pen.lineWidth = lit ? 2 : 1;
    pen.stroke();
    pen.save();
    pen.clip();
    pen.fillStyle = tint(command.kernel);
    pen.fillRect(x, y, 4, BOX);
    pen.restore();
    if (view.width < 60) return;
    const dot = command.label.indexOf(".");
    const inPart = dot > 0 && parts.some((part) => part.name && command.level >= part.first && command.level <= part.last && command.label.startsWith(part.name + "."));
    pen.font = `600 11.5px ${FONT}`;
    pen.fillStyle = colours.ink;
    write(inPart ? command.label.slice(dot + 1) : command.label, x + 9, y + (view.width > 110 ? BOX * 0.33 : BOX / 2), width - 13);
    if (view.width > 110) {
      pen.font = `10px ${FONT}`;
      pen.fillStyle = colours.soft;
      write(command.kernel, x + 9, y + BOX * 0.76, width - 13);
    }
  }

  const DASH = { RAW: [], WAR: [6, 3], WAW: [2, 3], RAR: [1, 4] };

  // From the right edge of who used the buffer to the left edge of who will; a use by the host or of the step before
  // comes in from the barrier.
  function pathOf(transition) {
    const { before, after, beforeKind, level } = transition;
    const x2 = after ? boxLeft(after.level) : level * view.width - view.x + lead();
    const y2 = after ? boxMiddle(after) : HEAD + 18 - view.y;
    if (beforeKind !== 0) {
      const x1 = x2 - lead() * 0.8;
      return [x1, y2 - 8, x1 + lead() * 0.3, y2 - 8, x2 - lead() * 0.4, y2, x2, y2];
    }
    const x1 = boxLeft(before.level) + boxWidth(), y1 = boxMiddle(before);
    const reach = Math.max(14, Math.min(60, (x2 - x1) * 0.5));
    return [x1, y1, x1 + reach, y1, x2 - reach, y2, x2, y2];
  }

  function stroke(transition, alpha, width) {
    const [x1, y1, x2, y2, x3, y3, x4, y4] = transition.path = pathOf(transition);
    pen.strokeStyle = pen.fillStyle = colours[transition.hazard];
    pen.globalAlpha = alpha;
    pen.lineWidth = width;
    pen.setLineDash(DASH[transition.hazard] || []);
    pen.beginPath();
    pen.moveTo(x1, y1);
    pen.bezierCurveTo(x2, y2, x3, y3, x4 - 4, y4);
    pen.stroke();
    pen.setLineDash([]);
    if (transition.beforeKind !== 0) {
      pen.beginPath();
      pen.arc(x1, y1, 1.8, 0, 7);
      pen.fill();
    }
    pen.beginPath();
    pen.moveTo(x4, y4);
    pen.lineTo(x4 - 6, y4 - 3);
    pen.lineTo(x4 - 6, y4 + 3);
    pen.fill();
    pen.globalAlpha = 1;
  }

  const isVisible = (transition, first, last) =>
    shown[transition.hazard] && transition.level >= first
    && (transition.beforeKind === 0 ? transition.before.level : transition.level) <= last;

  const isPicked = (transition) => {
    for (const one of [picked, hovered]) {
      if (!one) continue;
      if (one.kind === "command" && (transition.after === one.command && transition.afterKind === 0 || transition.before === one.command && transition.beforeKind === 0)) return true;
      if (one.kind === "transition" && one.transition === transition) return true;
    }
    return false;
  };

  let drawn = [];
  function drawTransitions(first, last) {
    drawn = [];
    if (view.width < 40) return;
    const calm = picked && picked.kind !== "level" ? 0.22 : 0.62;
    for (const transition of transitions) {
      if (!isVisible(transition, first, last)) continue;
      // Far uses would cross everything between: they are drawn when asked for, and hinted at where they end.
      const span = transition.beforeKind === 0 ? transition.level - transition.before.level : 0;
      stroke(transition, span > 3 ? calm * 0.35 : calm, 1.2);
      drawn.push(transition);
    }
  }

  // Who makes what a command reads and who reads what it makes: also where no transition is needed, since one for
  // another reader stands before both.
  function drawFlow(command) {
    pen.strokeStyle = colours.soft;
    pen.lineWidth = 1;
    const curve = (from, to) => {
      const x1 = boxLeft(from.level) + boxWidth(), y1 = boxMiddle(from), x2 = boxLeft(to.level), y2 = boxMiddle(to);
      const reach = Math.max(14, Math.min(60, (x2 - x1) * 0.5));
      pen.beginPath();
      pen.moveTo(x1, y1);
      pen.bezierCurveTo(x1 + reach, y1, x2 - reach, y2, x2, y2);
      pen.stroke();
    };
    for (const from of makers(command)) curve(from, command);
    for (const to of users(command)) curve(command, to);
  }

  function drawPickedTransitions() {
    for (const one of new Set([picked && picked.command, hovered && hovered.command])) if (one && view.width >= 22) drawFlow(one);
    for (const transition of transitions) {
      if (isPicked(transition) && shown[transition.hazard]) {
        stroke(transition, 1, 2.2);
        if (!drawn.includes(transition)) drawn.push(transition);
      }
    }
  }

  function drawLanes(first, last, w, h) {
    if (!lanes.length) return;
    const top = lanesTop - view.y;
    pen.textAlign = "left";
    pen.font = `600 11px ${FONT}`;
    pen.fillStyle = colours.soft;
    pen.fillText("slots: which values lie in them, from the level that writes each to the last that uses it", 8, top - 12);
    for (const slot of lanes) {
      const slotTop = top + slot.lane * LANE, tall = slot.lanes * LANE;
      if (slotTop > h || slotTop + tall < HEAD) continue;
      pen.fillStyle = colours.edge;
      pen.fillRect(0, slotTop + tall - 1, w, 1);
      for (const value of slot.values) {
        if (value.last < first || value.first > last) continue;
        const y = top + value.lane * LANE;
        const x = value.first * view.width - view.x + 1, width = Math.max(0.7, (value.last - value.first + 1) * view.width - 2);
        const maker = value.writers[0], lit = picked && (picked.kind === "value" && picked.value === value || picked.kind === "command" && picked.command.ports.some((port) => port.value === value));
        const over = hovered && hovered.value === value;
        pen.fillStyle = value.isMatch ? colours.glow : maker ? tint(maker.kernel, lit || over ? 0.95 : 0.5) : colours.faint;
        pen.beginPath();
        if (width < 6) pen.rect(x, y + 2, width, LANE - 5); else pen.roundRect(x, y + 2, width, LANE - 5, 3);
        pen.fill();
        if (lit || over) {
          pen.strokeStyle = colours.pick;
          pen.lineWidth = 1.5;
          pen.stroke();
        }
        const room = Math.min(x + width, w) - Math.max(x, 0) - 8;
        if (width > 44 && room > 20) {
          pen.font = `10px ${FONT}`;
          pen.fillStyle = lit || over ? colours.panel : colours.ink;
          write(value.path, Math.max(x, 0) + 5, y + LANE / 2 - 0.5, room);
        }
      }
      pen.font = `10px ${FONT}`;
      const name = slot.label, wide = pen.measureText(name).width + 10;
      pen.fillStyle = colours.panel;
      pen.globalAlpha = 0.88;
      pen.fillRect(w - wide, slotTop, wide, tall - 1);
      pen.globalAlpha = 1;
      pen.fillStyle = colours.soft;
      pen.fillText(name, w - wide + 5, slotTop + LANE / 2 - 0.5);
    }
  }

  function drawMap(first, last) {
    const { w, h } = fitCanvas(map, mapPen), step = w / (levels.length + 1);
    mapPen.textBaseline = "middle";
    for (const [nth, part] of parts.entries()) {
      const x = part.first * step, width = (part.last - part.first + 1) * step;
      if (nth % 2) {
        mapPen.fillStyle = colours.band;
        mapPen.fillRect(x, 0, width, h);
      }
      mapPen.fillStyle = colours.soft;
      mapPen.font = `10px ${FONT}`;
      const name = shortened(mapPen, part.name, width - 6);
      if (mapPen.measureText(name).width < width - 6) mapPen.fillText(name, x + 4, 8);
    }
    const most = Math.max(1, ...levels.map((level) => level.transitions.length));
    const bar = Math.max(0.7, step - (step > 3 ? 1 : 0));
    levels.forEach((level, number) => {
      let y = h - 4;
      for (const [hazard, count] of level.hazards) {
        if (!count) continue;
        const tall = count / most * (h - 22);
        mapPen.fillStyle = colours[hazard];
        mapPen.globalAlpha = shown[hazard] ? 0.75 : 0.15;
        mapPen.fillRect(number * step, y - tall, bar, tall);
        y -= tall;
      }
    });
    mapPen.globalAlpha = 1;
    mapPen.fillStyle = colours.pick;
    for (const one of matches) mapPen.fillRect((one.command ? one.command.level : one.value.first) * step, h - 3, Math.max(2, bar), 3);
    const left = view.x / view.width * step, width = Math.max(4, size(canvas).w / view.width * step);
    mapPen.strokeStyle = colours.pick;
    mapPen.lineWidth = 1.5;
    mapPen.beginPath();
    mapPen.roundRect(left + 1, 1, Math.min(width, w) - 2, h - 2, 4);
    mapPen.stroke();
  }

  // ---- words ----

  const bytes = (count) => count < 10000 ? `${count} B` : count < 1e6 ? `${(count / 1024).toFixed(1)} KiB` : `${(count / 1048576).toFixed(1)} MiB`;

  // Everything from the plan becomes text, never markup.
  function element(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (key === "go") {
        made.href = "#";
        made.addEventListener("click", (event) => { event.preventDefault(); pick(value, true); });
      } else {
        made.setAttribute(key, value);
      }
    }
    for (const child of children) if (child !== null && child !== undefined) made.append(child);
    return made;
  }

  const link = (command) => element("a", { go: { kind: "command", command } }, command.label);
  const party = (kind, command) =>
    kind === 0 ? [link(command)] : kind === 1 ? [link(command), " of the step before"] : [kind === 2 ? "the host" : "the step before"];

  function reasonItem(transition) {
    return element("li", null,
      element("span", { class: `badge ${transition.hazard}` }, transition.hazard),
      element("b", null, transition.buffer.label), " ",
      element("span", { class: "usage" }, `${transition.from} → ${transition.to}`), element("br"),
      ...party(transition.beforeKind, transition.before), transition.wrote ? " wrote it, " : " read it, ",
      ...party(transition.afterKind, transition.after), transition.writes ? " writes it" : " reads it");
  }

  function list(title, items, look = "") {
    return items.length ? [element("h3", null, title), element("ul", { class: look }, ...items)] : [];
  }

  const unique = (all) => [...new Set(all)];

  const neighbours = (command, mode, side) =>
    unique(command.ports.filter((port) => port.mode & mode && port.value).flatMap((port) => port.value[side])).filter((other) => other !== command);
  const makers = (command) => neighbours(command, 1, "writers");
  const users = (command) => neighbours(command, 2, "readers");

  function portRow(port) {
    const mode = ["", "reads", "writes", "updates"][port.mode];
    const where = port.value ? [element("a", { go: { kind: "value", value: port.value } }, port.value.path), " ", element("span", { class: "usage" }, port.buffer.label)]
      : [port.buffer.label, port.offset ? ` +${port.offset}` : ""];
    return element("tr", null, element("td", { class: "mode" }, `${mode} ${port.name}`), element("td", null, ...where),
      element("td", { class: "bytes" }, bytes(port.bytes)));
  }

  function describeCommand(command) {
    const from = makers(command), to = users(command);
    const dispatch = command.of ? `${command.groups.join(" × ")} workgroups of ${command.of.size.join(" × ")}` : "copy";
    return [
      element("h2", null, command.label), element("div", { class: "kernel" }, `${command.kernel}, level ${command.level}, ${dispatch}`),
      command.place ? element("div", { class: "place" }, command.place) : null,
      element("h3", null, "bound"), element("table", null, ...command.ports.map(portRow)),
      ...list(`before it, in barrier b${command.level}`, command.into.map(reasonItem)),
      ...list("made by", from.map((other) => element("li", null, link(other))), "names"),
      ...list("used by", to.map((other) => element("li", null, link(other))), "names"),
      ...list("later transitions", command.outof.filter((transition) => transition.beforeKind === 0).map(reasonItem)),
    ];
  }

  const distance = (one, other) => Math.max(0, other.first - one.last, one.first - other.last);

  function describeValue(value) {
    return [
      element("h2", null, value.path), element("div", { class: "kernel" }, `${value.of}, ${bytes(value.bytes)}`),
      element("div", { class: "kernel" }, `${value.buffer.label} from byte ${value.offset} of ${value.buffer.bytes}, levels ${value.first} to ${value.last}`),
      ...list("made by", unique(value.writers).map((other) => element("li", null, link(other))), "names"),
      ...list("used by", unique(value.readers).map((other) => element("li", null, link(other))), "names"),
      ...list("beside it, before it and after it in the slot", value.buffer.values.filter((other) => other !== value)
        .sort((a, b) => distance(value, a) - distance(value, b)).slice(0, 16).sort((a, b) => a.first - b.first || a.offset - b.offset)
        .map((other) => element("li", null, element("a", { go: { kind: "value", value: other } }, other.path), ` levels ${other.first} to ${other.last}`))),
    ];
  }

  function describeLevel(number) {
    const level = number < levels.length ? levels[number] : leave;
    return [
      element("h2", null, number < levels.length ? `level ${number}` : "leave"),
      element("div", { class: "kernel" }, `${level.commands.length} commands behind one barrier of ${level.transitions.length} transitions`),
      ...list("commands", level.commands.map((command) => element("li", null, link(command), " ", element("span", { class: "usage" }, command.kernel)))),
      ...list(number < levels.length ? `barrier b${number}` : "leaving barrier", level.transitions.map(reasonItem)),
    ];
  }

  function describe(one) {
    if (one.kind === "command") return describeCommand(one.command);
    if (one.kind === "value") return describeValue(one.value);
    if (one.kind === "level") return describeLevel(one.level);
    return [element("h2", null, `transition of ${one.transition.buffer.label}`), element("ul", null, reasonItem(one.transition))];
  }

  const levelOf = (one) => one.kind === "command" ? one.command.level : one.kind === "value" ? one.value.first : one.kind === "level" ? one.level : one.transition.level;
  const nameOf = (one) => one.kind === "command" ? one.command.label : one.kind === "value" ? one.value.path : one.kind === "level" ? `level ${one.level}` : one.transition.buffer.label;

  function pick(one, isFar = false) {
    picked = one;
    byId("detail").replaceChildren(...(one ? describe(one) : overview()).filter((child) => child));
    byId("detail").scrollTop = 0;
    if (one) {
      byId("said").textContent = one.kind === "command" ? `${nameOf(one)}, ${one.command.kernel}, level ${one.command.level}` : nameOf(one);
      byId("level").value = Math.min(levelOf(one), levels.length - 1);
      if (view.width < 60 && isFar) view.width = 168;
      goTo(levelOf(one), true);
      const y = one.kind === "command" ? HEAD + one.command.row * ROW : one.kind === "value" ? lanesTop + one.value.lane * LANE : -1;
      const { h } = size(canvas);
      if (y >= 0 && (y < view.y + HEAD || y > view.y + h - 60)) view.y = y - h / 2;
      bound();
    }
    redraw();
  }

  function overview() {
    const counts = new Map();
    for (const { kernel } of commands) counts.set(kernel, (counts.get(kernel) || 0) + 1);
    const sorted = [...counts].sort((a, b) => b[1] - a[1]);
    const key = sorted.map(([kernel, count]) => {
      const swatch = element("span", { style: `display:inline-block;width:9px;height:9px;border-radius:2px;margin-right:7px;background:${tint(kernel)}` });
      const name = element("a", { href: "#" }, kernel);
      name.addEventListener("click", (event) => { event.preventDefault(); byId("search").value = kernel; search(kernel, true); });
      return element("tr", null, element("td", null, swatch, name), element("td", { class: "bytes" }, String(count)));
    });
    return [
      element("h2", null, "Reading this"),
      element("div", { class: "kernel" }, "A column is a level: commands of which none depends on another, behind one barrier. An arrow is a transition of one buffer, from who used it to who uses it next; one that begins at a dot comes from the host or from the step before. Below are slots, and bars are the lives of the values in them. Point at anything, or pick it."),
      element("h3", null, "dispatches by kernel"), element("table", null, ...key),
    ];
  }

  // ---- pointing ----

  function at(x, y) {
    const number = Math.floor((x + view.x) / view.width);
    if (x < 0 || y < 0 || number < 0 || number > levels.length) return null;
    if (y < HEAD) return { kind: "level", level: number };
    if (number < levels.length && y + view.y < lanesTop - GAP) {
      const row = Math.floor((y + view.y - HEAD - 4) / ROW), left = boxLeft(number);
      const command = levels[number].commands[row];
      const isIn = command && x >= Math.min(left, number * view.width - view.x + (view.width < 22 ? 0 : lead())) && y <= boxTop(row) + BOX;
      if (isIn) return { kind: "command", command };
    }
    if (y + view.y >= lanesTop) {
      const lane = Math.floor((y + view.y - lanesTop) / LANE);
      const value = values.find((value) => value.lane === lane && value.buffer.lanes && value.first <= number && number <= value.last);
      return value ? { kind: "value", value } : null;
    }
    const transition = y + view.y < lanesTop - GAP ? nearest(x, y) : null;
    return transition ? { kind: "transition", transition } : null;
  }

  function nearest(x, y) {
    let best = null, distance = 36;
    for (const transition of drawn) {
      const [x1, y1, x2, y2, x3, y3, x4, y4] = transition.path;
      if (x < Math.min(x1, x4) - 8 || x > Math.max(x1, x4) + 8 || y < Math.min(y1, y4) - 12 || y > Math.max(y1, y4) + 12) continue;
      for (let nth = 0; nth <= 24; nth++) {
        const t = nth / 24, u = 1 - t, a = u * u * u, b = 3 * u * u * t, c = 3 * u * t * t, d = t * t * t;
        const dx = a * x1 + b * x2 + c * x3 + d * x4 - x, dy = a * y1 + b * y2 + c * y3 + d * y4 - y;
        const here = dx * dx + dy * dy;
        if (here < distance) { distance = here; best = transition; }
      }
    }
    return best;
  }

  const same = (a, b) => a === b || a && b && a.kind === b.kind && a.command === b.command && a.value === b.value && a.level === b.level && a.transition === b.transition;

  function hover(one, x, y) {
    const tip = byId("tip");
    if (!same(one, hovered)) {
      hovered = one;
      tip.replaceChildren(...(one ? describe(one) : []).filter((child) => child));
      // What is long stands beside the plan once it is picked.
      for (const group of tip.querySelectorAll("ul")) {
        const most = group.className === "names" ? 12 : 4, more = group.children.length - most;
        while (group.children.length > most) group.lastChild.remove();
        if (more > 0) group.append(element("li", { class: "usage" }, `and ${more} more`));
      }
      redraw();
    }
    tip.hidden = !one;
    if (!one) return;
    const { w, h } = size(byId("stage"));
    tip.style.left = `${clamp(x + 16 + tip.offsetWidth > w ? x - tip.offsetWidth - 12 : x + 16, 4, w)}px`;
    tip.style.top = `${clamp(y + 18, 4, Math.max(4, h - tip.offsetHeight - 6))}px`;
  }

  let held = null;
  canvas.addEventListener("pointerdown", (event) => {
    held = { x: event.offsetX, y: event.offsetY, left: view.x, top: view.y, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (held) {
      const dx = event.offsetX - held.x, dy = event.offsetY - held.y;
      if (Math.abs(dx) + Math.abs(dy) > 4) held.moved = true;
      if (held.moved) {
        canvas.classList.add("held");
        hover(null);
        view.x = held.left - dx;
        view.y = held.top - dy;
        bound();
        redraw();
      }
      return;
    }
    const one = at(event.offsetX, event.offsetY);
    canvas.classList.toggle("over", Boolean(one));
    hover(one, event.offsetX, event.offsetY);
  });
  canvas.addEventListener("pointerup", (event) => {
    if (held && !held.moved) pick(at(event.offsetX, event.offsetY));
    held = null;
    canvas.classList.remove("held");
  });
  canvas.addEventListener("pointercancel", () => { held = null; canvas.classList.remove("held"); });
  canvas.addEventListener("pointerleave", () => hover(null));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const unit = event.deltaMode === 1 ? 16 : 1;
    if (event.ctrlKey || event.metaKey) {
      zoom(Math.exp(-event.deltaY * unit * 0.004), event.offsetX);
      return;
    }
    if (event.shiftKey && !event.deltaX) view.y += event.deltaY * unit;
    else view.x += (event.deltaX || event.deltaY) * unit;
    bound();
    hover(null);
    redraw();
  }, { passive: false });

  const mapTo = (event) => {
    const { w } = size(map);
    view.x = event.offsetX / w * total() - size(canvas).w / 2;
    bound();
    redraw();
  };
  map.addEventListener("pointerdown", (event) => { map.setPointerCapture(event.pointerId); mapTo(event); });
  map.addEventListener("pointermove", (event) => { if (event.buttons) mapTo(event); });

  // ---- finding ----

  function search(words, isFar = false) {
    for (const one of [...commands, ...values]) one.isMatch = false;
    matches = [];
    match = -1;
    const wanted = words.trim().toLowerCase();
    if (wanted) {
      const has = (where) => where.toLowerCase().includes(wanted);
      for (const command of commands) {
        // A place is asked for by file and line; the file's name alone stands in every place.
        if (has(command.label) || has(command.kernel) || wanted.includes(":") && has(command.place)) matches.push({ kind: "command", command });
      }
      for (const value of values) {
        if (has(value.path) && !value.writers.some((command) => command.label === value.path) || has(value.buffer.label)) matches.push({ kind: "value", value });
      }
      for (const one of matches) (one.command || one.value).isMatch = true;
      // A whole name, or one's last word, before parts of names.
      const rank = (one) => { const name = nameOf(one).toLowerCase(); return name === wanted ? 0 : name.endsWith("." + wanted) ? 1 : 2; };
      matches = matches.map((one, nth) => [rank(one), levelOf(one), nth, one]).sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]).map((entry) => entry[3]);
    }
    byId("found").textContent = wanted ? (matches.length ? `1 of ${matches.length}` : "none") : "";
    if (matches.length) step(1, isFar); else redraw();
  }

  function step(by, isFar = true) {
    if (!matches.length) return;
    match = (match + by + matches.length) % matches.length;
    byId("found").textContent = `${match + 1} of ${matches.length}`;
    pick(matches[match], isFar);
  }

  byId("search").addEventListener("input", (event) => search(event.target.value));
  byId("search").addEventListener("keydown", (event) => {
    if (event.key === "Enter") { event.preventDefault(); step(event.shiftKey ? -1 : 1); }
    if (event.key === "Escape") { event.target.value = ""; search(""); canvas.focus(); }
  });
  byId("next").addEventListener("click", () => step(1));
  byId("previous").addEventListener("click", () => step(-1));
  byId("level").max = levels.length - 1;
  byId("level").addEventListener("change", (event) => {
    const number = clamp(Math.round(Number(event.target.value)) || 0, 0, levels.length - 1);
    pick({ kind: "level", level: number }, true);
  });
  byId("parts").append(element("option", { value: "" }, "…"), ...parts.flatMap((part, nth) => part.name ? [element("option", { value: nth }, part.name)] : []));
  byId("partsLabel").hidden = parts.every((part) => !part.name);
  byId("parts").addEventListener("change", (event) => {
    if (event.target.value === "") return;
    view.x = parts[Number(event.target.value)].first * view.width;
    bound();
    redraw();
  });

  // ---- keys and buttons ----

  function move(by) {
    const level = picked ? levelOf(picked) : visible()[0];
    const row = picked && picked.kind === "command" ? picked.command.row : 0;
    let number = picked ? level + by : level;
    while (number >= 0 && number < levels.length && !levels[number].commands.length) number += by;
    if (number < 0 || number >= levels.length) return;
    const there = levels[number].commands;
    pick({ kind: "command", command: there[Math.min(row, there.length - 1)] });
  }

  function moveInside(by) {
    if (!picked || picked.kind !== "command") { move(0); return; }
    const there = levels[picked.command.level].commands;
    const command = there[picked.command.row + by];
    if (command) pick({ kind: "command", command });
  }

  const KEYS = {
    ArrowLeft: () => move(-1), ArrowRight: () => move(1), ArrowUp: () => moveInside(-1), ArrowDown: () => moveInside(1),
    Home: () => pick({ kind: "level", level: 0 }), End: () => pick({ kind: "level", level: levels.length - 1 }),
    PageUp: () => { view.x -= size(canvas).w * 0.9; bound(); redraw(); },
    PageDown: () => { view.x += size(canvas).w * 0.9; bound(); redraw(); },
    "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), 0: fit,
    Escape: () => { pick(null); keys(false); },
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const inField = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (inField) return;
    if (event.key === "/") { event.preventDefault(); byId("search").focus(); byId("search").select(); return; }
    if (event.key === "?") { keys(); return; }
    if (/^Arrow/.test(event.key) && event.target.tagName === "BUTTON") return;
    const act = KEYS[event.key];
    if (act) { event.preventDefault(); act(); }
  });

  function keys(isOpen = byId("keys").hidden) {
    byId("keys").hidden = !isOpen;
    byId("help").setAttribute("aria-expanded", String(isOpen));
  }

  function theme(isDark) {
    root.classList.toggle("dark", isDark);
    readColours();
    pick(picked);
  }

  byId("in").addEventListener("click", () => zoom(1.25));
  byId("out").addEventListener("click", () => zoom(0.8));
  byId("fit").addEventListener("click", fit);
  byId("help").addEventListener("click", () => keys());
  let chosen = false;
  byId("theme").addEventListener("click", () => { chosen = true; theme(!dark()); });
  const preference = matchMedia("(prefers-color-scheme: dark)");
  preference.addEventListener("change", () => { if (!chosen) theme(preference.matches); });

  const HAZARDS = { RAW: "read after write", WAR: "write after read", WAW: "write after write", RAR: "another kind of read" };
  for (const [hazard, meaning] of Object.entries(HAZARDS)) {
    const count = transitions.filter((transition) => transition.hazard === hazard).length;
    if (!count) continue;
    const style = hazard === "RAW" ? "solid" : hazard === "WAR" ? "dashed" : "dotted";
    const button = element("button", { type: "button", title: meaning, "aria-pressed": "true" },
      element("i", { style: `border-top-style:${style};border-color:var(--${hazard.toLowerCase()})` }), `${hazard} ${count}`);
    button.addEventListener("click", () => {
      shown[hazard] = !shown[hazard];
      button.setAttribute("aria-pressed", String(shown[hazard]));
      redraw();
    });
    byId("hazards").append(button);
  }

  const [tokens, sequences, outputRows, capacity] = raw.shape;
  byId("name").append(text(raw.graph), element("small", null, `T=${tokens} S=${sequences} R=${outputRows} B=${capacity}`));
  for (const [name, figure] of raw.summary) {
    const isBytes = name.startsWith("bytes ");
    const value = isBytes ? bytes(figure) : String(figure);
    byId("figures").append(element("div", null, element("dt", null, isBytes ? name.slice(6) : name), element("dd", null, value)));
  }

  // ---- what the location asks for ----

  function follow() {
    const wanted = new Map();
    for (const pair of location.hash.slice(1).split("&").filter(Boolean)) {
      const equals = pair.indexOf("=");
      const value = equals < 0 ? "" : pair.slice(equals + 1);
      let plain = value;
      try { plain = decodeURIComponent(value); } catch { /* as it stands */ }
      wanted.set(equals < 0 ? pair : pair.slice(0, equals), plain);
    }
    if (wanted.has("dark") || wanted.has("light")) { chosen = true; theme(wanted.has("dark")); }
    if (Number(wanted.get("zoom")) > 0) { view.width = Number(wanted.get("zoom")); bound(); }
    if (wanted.has("fit")) fit();
    if (wanted.has("search")) { byId("search").value = wanted.get("search"); search(wanted.get("search")); }
    const command = (label) => commands.find((command) => command.label === label);
    if (command(wanted.get("op"))) pick({ kind: "command", command: command(wanted.get("op")) });
    if (wanted.has("level")) {
      const number = clamp(Math.round(Number(wanted.get("level"))) || 0, 0, levels.length - 1);
      pick({ kind: "level", level: number });
      goTo(number);
    }
    const under = command(wanted.get("hover"));
    if (under) {
      goTo(under.level);
      hover({ kind: "command", command: under }, boxLeft(under.level) + boxWidth() / 2, boxMiddle(under));
    }
    redraw();
  }
  addEventListener("hashchange", follow);
  // At once: a frame later, the old picture would be seen stretched.
  new ResizeObserver(() => { bound(); draw(); }).observe(byId("stage"));
  theme(preference.matches);
  bound();
  follow();
})();
