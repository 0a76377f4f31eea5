// Sends forms to the JSON API. `data-send` is the method and the URL, `data-then` the page to show next.

const problem = document.getElementById("problem");

async function send(target, body, then) {
  const [method, url] = target.split(" ");
  const headers = body && !(body instanceof FormData) ? { "Content-Type": "application/json" } : {};
  const response = await fetch(url, { method, headers, body: headers["Content-Type"] ? JSON.stringify(body) : body });
  if (!response.ok) {
    const { detail } = await response.json().catch(() => ({ detail: response.statusText }));
    problem.textContent = Array.isArray(detail) ? detail.map((one) => `${one.loc.at(-1)}: ${one.msg}`).join("; ") : detail;
    problem.hidden = false;
    problem.scrollIntoView();
    return;
  }
  if (!then) return location.reload();
  const values = response.status === 204 ? {} : await response.json();
  location.assign(then.replace(/{(\w+)}/g, (_, name) => values[name]));
}

function move(item, by) {
  const list = item.parentElement;
  const order = [...list.children].map((child) => child.dataset.id);
  const index = order.indexOf(item.dataset.id);
  order.splice(index + by, 0, ...order.splice(index, 1));
  return send(`PUT ${list.dataset.order}`, order);
}

document.addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const button = event.submitter;
  button.disabled = true;
  problem.hidden = true;
  try {
    if (form.dataset.move) {
      await move(form.closest("li"), Number(form.dataset.move));
    } else {
      const data = new FormData(form);
      const body = form.querySelector("[type=file]") ? data : data.entries().next().done ? null : Object.fromEntries(data);
      await send(button.dataset.send ?? form.dataset.send, body, form.dataset.then);
    }
  } finally {
    button.disabled = false;
  }
});
