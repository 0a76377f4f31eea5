// Everything works without this file, too: forms are forms, links are links.

const $ = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// --- forms: sent in the background, with progress, and the page's regions are brought up to date ---

document.addEventListener("submit", (event) => {
  const form = event.target.closest("form[data-send]");
  if (!form) return;
  event.preventDefault();
  if (form.ariaBusy === "true" || (form.dataset.ask && !confirm(form.dataset.ask))) return;
  const tooLarge = all("input[data-max-bytes]", form).flatMap((input) =>
    [...input.files].filter((file) => file.size > Number(input.dataset.maxBytes)));
  if (tooLarge.length) {
    complain(form, `${tooLarge.map((file) => file.name).join(", ")}: larger than is accepted here.`);
  } else {
    send(form);
  }
});

document.addEventListener("change", (event) => {
  if (event.target.matches("[data-autosend]")) event.target.form.requestSubmit();
});

function send(form) {
  const request = new XMLHttpRequest(); // fetch() does not tell how far an upload is
  const bar = $("progress", form);
  const end = () => {
    form.ariaBusy = "false";
    if (bar) bar.hidden = true;
  };
  request.open("POST", form.action);
  request.setRequestHeader("Accept", "application/json");
  request.responseType = "json";
  if (bar) {
    request.upload.onprogress = ({ loaded, total }) => (bar.value = (100 * loaded) / total);
    bar.value = 0;
    bar.hidden = false;
  }
  request.onload = async () => {
    end();
    if (request.status >= 400) return complain(form, request.response?.message ?? "That was too much at once.");
    complain(form, "");
    form.reset();
    form.dispatchEvent(new Event("sent"));
    await refresh();
    say(form.dataset.said);
  };
  request.onerror = () => {
    end();
    complain(form, "The gallery could not be reached. Nothing was changed.");
  };
  complain(form, "");
  form.ariaBusy = "true";
  request.send(new FormData(form));
}

function complain(form, message) {
  const place = $(".problem", form);
  if (place) {
    place.textContent = message;
    place.hidden = !message;
  } else {
    say(message, 10000);
    if (message) form.reset(); // or choosing the same file again would be no change
  }
}

async function refresh() {
  const fresh = new DOMParser().parseFromString(await (await fetch(location.href)).text(), "text/html");
  const lost = document.activeElement?.closest("[data-region]");
  for (const region of all("[data-region]")) region.replaceWith(fresh.getElementById(region.id));
  if (lost) document.getElementById(lost.id).focus({ preventScroll: true });
}

let silence;
function say(message, milliseconds = 4000) {
  clearTimeout(silence);
  $("#status").textContent = message;
  silence = setTimeout(() => ($("#status").textContent = ""), milliseconds);
}

// --- what was chosen, and dropping ---

const compose = $("#compose form");
if (compose) {
  const input = $("input[type=file]", compose);
  const drop = $("#drop");
  const show = () => {
    const chosen = $("#chosen");
    for (const picture of all("img", chosen)) URL.revokeObjectURL(picture.src);
    chosen.replaceChildren(...[...input.files].slice(0, 24).map((file) => {
      const item = document.createElement("li");
      if (!file.type.startsWith("image/")) {
        item.textContent = file.name;
        return item;
      }
      const picture = new Image();
      picture.src = URL.createObjectURL(file);
      picture.alt = picture.title = file.name;
      item.append(picture);
      return item;
    }));
    $(".call", drop).lastChild.textContent = input.files.length ? "" : " or drop them here";
    $(".call strong", drop).textContent = { 0: "Choose photographs", 1: "1 photograph chosen" }[input.files.length]
      ?? `${input.files.length} photographs chosen`;
  };
  for (const kind of ["dragenter", "dragover"]) drop.addEventListener(kind, () => drop.classList.add("over"));
  for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
  const name = $("input[name=author]", compose);
  name.value = name.defaultValue = localStorage.getItem("author") ?? "";
  input.addEventListener("change", show);
  compose.addEventListener("sent", () => {
    name.value = name.defaultValue = localStorage.getItem("author") ?? "";
    show();
  });
  compose.addEventListener("submit", () => localStorage.setItem("author", name.value));
}

// --- one photograph, large ---

const viewer = $("#viewer");
let shown;

function view(tile) {
  shown = tile;
  const small = $("img", tile);
  const large = $("img", viewer);
  large.sizes = `min(100vw, ${tile.dataset.width}px)`; // never larger than the original
  large.srcset = $("source", tile).srcset;
  large.src = $("a", tile).href;
  large.alt = small.alt;
  $("figcaption", viewer).textContent = small.alt;
  for (const button of all(".previous, .next", viewer)) button.hidden = tile.parentElement.children.length < 2;
  if (!viewer.open) viewer.showModal();
}

function turn(steps) {
  const tiles = [...shown.parentElement.children];
  view(tiles.at((tiles.indexOf(shown) + steps) % tiles.length));
}

document.addEventListener("click", (event) => {
  const link = event.target.closest(".tile .open");
  if (link && !(event.ctrlKey || event.metaKey || event.shiftKey)) {
    event.preventDefault();
    view(link.parentElement);
  }
});
viewer.addEventListener("click", (event) => {
  if (event.target.closest(".previous")) turn(-1);
  else if (event.target.closest(".next")) turn(1);
  else if (!event.target.closest("img")) viewer.close();
});
viewer.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") turn(-1);
  if (event.key === "ArrowRight") turn(1);
});
