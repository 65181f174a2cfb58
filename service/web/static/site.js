// Keeps pages up to date. What the server sends is drawn and escaped there; here it only takes its place.
"use strict";

const LOST = "The connection is lost. Trying again\u2026";

const main = document.getElementById("main");
const notice = main.querySelector(".notice");

function tell(text) {
  if (!notice || notice.textContent === text) return;
  notice.textContent = text;
  notice.hidden = text === "";
}

function parsed(html) {
  return new DOMParser().parseFromString(html, "text/html");
}

// Fetches the page that is open; nothing if it cannot be had. One that became another page is gone to.
async function fetched() {
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (answer.redirected) {
      location.reload();
      return null;
    }
    if (!answer.ok) return null;
    return parsed(await answer.text());
  } catch {
    return null;
  }
}

// Lists: the part that changes is fetched again while somebody looks.
function keepFresh(seconds) {
  setInterval(async () => {
    const part = main.querySelector("[data-fresh]");
    if (document.hidden || part.contains(document.activeElement)) return;
    const page = await fetched();
    tell(page ? "" : LOST);
    if (!page) return;
    for (const place of ["[data-fresh]", ".filters"]) {
      const [old, young] = [main.querySelector(place), page.querySelector(place)];
      if (old && young && !old.contains(document.activeElement) && old.innerHTML !== young.innerHTML) old.replaceWith(young);
    }
  }, seconds * 1000);
}

// A job: its events as they come. Browsers have few connections for each server, so a hidden page gives its own back.
function follow() {
  const address = main.dataset.events;
  const patience = 3000 * Number(main.dataset.beat) + 2000;
  let after = main.dataset.after;
  let source = null;
  let watchdog = 0;
  let over = false;

  function alive() {
    tell("");
    clearTimeout(watchdog);
    watchdog = setTimeout(() => { tell(LOST); again(); }, patience);
  }

  function show(event) {
    alive();
    const told = JSON.parse(event.data);
    main.querySelector("[data-live]").replaceChildren(...parsed(told.live).body.childNodes);
    const log = main.querySelector("[data-log]");
    const last = Number(log.firstElementChild ? log.firstElementChild.dataset.sequence : 0);
    const lines = [...parsed(`<ol>${told.lines}</ol>`).querySelectorAll("li")];
    log.prepend(...lines.filter((line) => Number(line.dataset.sequence) > last));
    document.title = `${told.title} (Shoal)`;
    if (event.lastEventId) after = event.lastEventId;
  }

  async function end() {
    over = true;
    close();
    const page = await fetched();
    if (!page) return;
    main.replaceChildren(...page.getElementById("main").childNodes);
    document.title = page.title;
  }

  function close() {
    clearTimeout(watchdog);
    if (source) source.close();
    source = null;
  }

  function open() {
    close();
    if (over) return;
    source = new EventSource(`${address}?after=${after}`);
    source.onopen = alive;
    source.onmessage = show;
    source.addEventListener("beat", show);
    source.addEventListener("end", end);
    source.onerror = () => {
      tell(LOST);
      // The browser tries again by itself, unless it was refused: then the page says why.
      if (source && source.readyState === EventSource.CLOSED) again();
    };
  }

  async function again() {
    close();
    await new Promise((resolve) => setTimeout(resolve, 2000));
    await fetched();
    if (!document.hidden) open();
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  open();
}

if (main.dataset.refresh) keepFresh(Number(main.dataset.refresh));
if (main.dataset.events) follow();
