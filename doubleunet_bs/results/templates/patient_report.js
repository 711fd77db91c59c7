"use strict";
// Window and level, larger views, sorting. Without this script the page shows everything at the usual level.

const canvases = [...document.querySelectorAll("canvas")];
const sliders = { black: document.getElementById("black"), white: document.getElementById("white") };
const shown = document.getElementById("window");

// The counts of a view: 16-bit numbers, least significant byte first, compressed by zlib.
async function unpack(canvas) {
  const bytes = Uint8Array.from(atob(canvas.dataset.counts), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const view = new DataView(await new Response(stream).arrayBuffer());
  canvas.counts = Uint16Array.from({ length: view.byteLength / 2 }, (_, place) => view.getUint16(2 * place, true));
}

function draw() {
  // The upper slider is logarithmic: ten steps double the level. The lower one is a part of the upper level.
  const factor = 2 ** (sliders.black.value / 10), part = sliders.white.value / 100;
  for (const canvas of canvases) {
    const black = canvas.dataset.upper * factor, white = black * part;
    const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
    for (let place = 0; place < canvas.counts.length; place++) {
      const grey = 255 - 255 * (canvas.counts[place] - white) / (black - white);  // is clamped to 0 to 255
      image.data[4 * place] = image.data[4 * place + 1] = image.data[4 * place + 2] = grey;
      image.data[4 * place + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }
  const black = shown.dataset.upper * factor;
  shown.textContent = `black at ${black.toFixed(0)} counts, white at ${(black * part).toFixed(0)}`;
}

Promise.all(canvases.map(unpack)).then(() => {
  const highest = Math.max(...canvases.map((canvas) => {
    const most = canvas.counts.reduce((one, other) => Math.max(one, other), 1);
    return Math.ceil(10 * Math.log2(most / canvas.dataset.upper));
  }));
  sliders.black.max = Math.max(10, highest);
  draw();
  document.body.classList.add("scripted");
  for (const slider of Object.values(sliders)) slider.addEventListener("input", draw);
  document.getElementById("usual").addEventListener("click", () => {
    sliders.black.value = sliders.white.value = 0;
    draw();
  });
}).catch((reason) => console.info(`no window and level in this browser: ${reason}`));

for (const button of document.querySelectorAll(".enlarge")) {
  const figure = button.closest("figure");
  const toggle = () => {
    button.setAttribute("aria-pressed", String(figure.classList.toggle("large")));
    button.textContent = figure.classList.contains("large") ? "smaller" : "enlarge";
  };
  button.hidden = false;
  button.addEventListener("click", toggle);
  figure.querySelector(".picture").addEventListener("click", toggle);
}

// A link to a lesion: its view in the middle of the screen, also where a browser would put it at the edge.
for (const link of document.querySelectorAll("td a")) {
  link.addEventListener("click", () => setTimeout(() => {
    document.querySelector(link.hash).scrollIntoView({ block: "center" });
  }));
}

for (const head of document.querySelectorAll("th button")) {
  head.addEventListener("click", () => {
    const cell = head.parentElement, body = cell.closest("table").tBodies[0];
    const rising = cell.getAttribute("aria-sort") === "descending";
    for (const other of cell.parentElement.cells) other.removeAttribute("aria-sort");
    cell.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const key = (row) => Number(row.cells[head.dataset.column].dataset.sort || -1);
    body.append(...[...body.rows].sort((one, other) => (rising ? 1 : -1) * (key(one) - key(other))));
  });
}
