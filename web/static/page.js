"use strict";
// Asks for the status every second and draws it. Everything is made with DOM
// calls, never from HTML text, since names come from other hosts.

const $ = (id) => document.getElementById(id);
const history = { read: [], written: [], reads: [], changes: [] };
const historyLength = 120;

function element(tag, className, text) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = text;
  return e;
}

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) { n /= 1024; i++; }
  return (i ? n.toFixed(1) : n) + " " + units[i];
}

const count = (n) => Number(n).toLocaleString("en");

function table(id, heads, rows) {
  const t = $(id), head = element("tr");
  for (const h of heads) head.append(element("th", h.startsWith("#") ? "n" : "", h.replace("#", "")));
  const body = rows.map((r) => {
    const tr = element("tr", r.className);
    r.cells.forEach((c, i) => {
      const cell = c && c.text !== undefined ? c : { text: c };
      tr.append(element("td", [cell.className, heads[i].startsWith("#") ? "n" : ""].join(" ").trim(), cell.text));
    });
    return tr;
  });
  t.replaceChildren(head, ...body);
}

function tiles(s) {
  const list = [
    ["space free", bytes(s.space.free_bytes) + " of " + bytes(s.space.total_bytes)],
    ["inodes", count(s.inodes.total)],
    ["file bytes", bytes(s.inodes.bytes)],
    ["chunks", count(s.chunks.total)],
    ["under goal", count(s.chunks.under_goal)],
    ["missing", count(s.chunks.missing)],
    ["being copied", count(s.chunks.replicating)],
    ["mounts", count((s.mounts || []).length)],
  ];
  $("tiles").replaceChildren(...list.map(([name, value]) => {
    const t = element("div", "tile");
    t.append(element("b", "", value), element("span", "", name));
    return t;
  }));
}

function chart(name, values, text) {
  const box = element("div", "chart"), ns = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(ns, "svg"), path = document.createElementNS(ns, "path");
  const top = Math.max(1, ...values);
  svg.setAttribute("viewBox", `0 0 ${historyLength - 1} 40`);
  svg.setAttribute("preserveAspectRatio", "none");
  path.setAttribute("d", values.map((v, i) =>
    (i ? "L" : "M") + (historyLength - values.length + i) + " " + (39 - 38 * v / top).toFixed(1)).join(" "));
  svg.append(path);
  box.append(element("span", "", name), element("b", "", text(values[values.length - 1] || 0)), svg);
  return box;
}

function charts(s) {
  const sum = (key) => s.servers.reduce((n, x) => n + x[key], 0);
  const add = (list, v) => { list.push(v); if (list.length > historyLength) list.shift(); };
  add(history.read, sum("read_bytes_rate"));
  add(history.written, sum("write_bytes_rate"));
  add(history.reads, s.rates.read_ops);
  add(history.changes, s.rates.changes);
  $("charts").replaceChildren(
    chart("chunkservers read", history.read, (n) => bytes(n) + "/s"),
    chart("chunkservers write", history.written, (n) => bytes(n) + "/s"),
    chart("metadata reads", history.reads, (n) => count(n) + "/s"),
    chart("metadata changes", history.changes, (n) => count(n) + "/s"));
}

function lease(m) {
  switch (m.lease) {
    case "held": return (1000 * m.lease_seconds).toFixed(0) + " ms";
    case "": return "";
    default: return m.lease;
  }
}

function masters(s) {
  table("masters", ["name", "role", "address", "#pid", "#epoch", "#changes", "#lag", "#lease", "VIP", "#image at", "#memory", "#busy"],
    s.masters.map((m) => ({ cells: [m.name, { text: m.down ? m.role + " (down)" : m.role, className: m.down ? "down" : m.role },
      m.addr || m.raft, m.pid, m.epoch, count(m.applied), m.lag === null ? "" : count(m.lag), lease(m), m.holds_vip ? "here" : "", count(m.image_index),
      bytes(m.memory_bytes), (100 * m.loop_busy).toFixed(0) + " %"] })));
  const f = s.failover;
  $("failover").textContent = !f ? "" : `last failover ${new Date(f.time / 1e6).toLocaleString()}, to ${f.to_name} in epoch ${f.epoch}: ${f.cause}; ` +
    `votes took ${(1000 * f.election_seconds).toFixed(0)} ms, then ${(1000 * f.ready_seconds).toFixed(0)} ms to serve`;
}

function servers(s) {
  const rows = [];
  for (const x of s.servers) {
    rows.push({ cells: [x.addr, { text: x.state, className: x.state }, x.labels, count(x.chunks), bytes(x.used_bytes), bytes(x.free_bytes),
      bytes(x.read_bytes_rate) + "/s", bytes(x.write_bytes_rate) + "/s", count(x.errors)] });
    for (const d of x.disks || []) {
      rows.push({ className: "disk", cells: [d.path, { text: d.state, className: d.state }, d.error || d.backend, count(d.chunks),
        bytes(d.used_bytes), bytes(d.free_bytes), "", "", count(d.damaged)] });
    }
  }
  table("servers", ["server", "state", "", "#chunks", "#used", "#free", "#read", "#write", "#errors"], rows);
}

function matrix(s) {
  const rows = [];
  (s.chunks.matrix || []).forEach((row, goal) => {
    if (!row.some((n) => n > 0)) return;
    rows.push({ cells: ["goal " + goal, ...row.map((n, copies) => ({
      text: n ? count(n) : "",
      className: !n ? "" : copies === 0 && goal > 0 ? "missing" : copies < goal ? "under" : "good",
    }))] });
  });
  table("matrix", ["", ...Array.from({ length: 11 }, (_, i) => "#" + i + (i === 10 ? "+" : ""))], rows);
}

function draw(s) {
  $("cluster").textContent = s.cluster;
  $("problems").replaceChildren(...(s.problems || []).map((p) => element("li", "", p)));
  tiles(s);
  charts(s);
  masters(s);
  servers(s);
  matrix(s);
  table("mounts", ["mount", "host", "path", "state", "#open", "#ops"], (s.mounts || []).map((m) => ({
    cells: [m.mount, m.host, m.path, { text: m.state, className: m.state }, count(m.open_files), count(m.ops)] })));
}

async function tick() {
  const state = $("state");
  try {
    const reply = await fetch("api/status", { cache: "no-store" });
    if (!reply.ok) throw new Error(reply.statusText);
    const s = await reply.json();
    draw(s);
    const ill = (s.problems || []).length > 0;
    state.textContent = ill ? s.problems.length + " problem(s)" : "all is well";
    state.className = ill ? "bad" : "good";
  } catch (e) {
    state.textContent = "no answer: " + e.message;
    state.className = "bad";
  }
  setTimeout(tick, 1000);
}

tick();
