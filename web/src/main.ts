import { ApiFault, hasKey, models, sentence, useKey, type Model } from "./api.ts";
import { announce } from "./announce.ts";
import { Chat } from "./chat.ts";
import { button, find, make } from "./dom.ts";
import { grouped, useOf } from "./models.ts";
import { Settings } from "./settings.ts";
import { startTheme } from "./theme.ts";
import { Tryout } from "./tryout.ts";

const main = find("main");
const select = find<HTMLSelectElement>("model");
const aside = find("settings");
const toggle = find<HTMLButtonElement>("settings-toggle");
const forget = find<HTMLButtonElement>("key-forget");
const dialog = find<HTMLDialogElement>("key-dialog");
const keyInput = find<HTMLInputElement>("key-input");
const settings = new Settings();
const wide = matchMedia("(min-width: 60rem)");

let known: Model[] = [];
let chat: Chat | null = null;
let view: Chat | Tryout | null = null;
let wanted: boolean | null = null; // the settings open, as the person chose; else as there is room

function showModel(id: string, fromPerson: boolean): void {
  const model = known.find((m) => m.id === id);
  if (!model) return;
  view?.escape();
  const use = useOf(model);
  toggle.hidden = use !== "text";
  if (use === "text") {
    if (chat) chat.use(model);
    else chat = new Chat(model, settings, askKey);
    view = chat;
  } else if (use !== "none") {
    view = new Tryout(model, use, askKey);
  } else {
    view = null;
  }
  main.replaceChildren(view ? view.element : make("p", { class: "notice" }, `${model.id} answers with vectors. Ask it at /v1/embeddings.`));
  showSettings(use === "text" && (wanted ?? wide.matches));
  document.title = `${model.id} · Tailor`;
  if (!fromPerson) view?.focus();
}

function showSettings(open: boolean): void {
  aside.hidden = !open;
  toggle.setAttribute("aria-expanded", String(open));
  for (const child of main.children) (child as HTMLElement).inert = open && !wide.matches; // they lie over it
}

function fill(list: Model[]): void {
  known = list;
  const before = select.value;
  select.replaceChildren(...grouped(list).map((group) => {
    const element = make("optgroup", {}, ...group.models.map((m) => new Option(m.id, m.id)));
    element.label = group.title;
    return element;
  }));
  select.disabled = list.length === 0;
  if (list.some((m) => m.id === before)) select.value = before;
  else if (list[0]) select.value = list[0].id; // the server's first is what an empty name means
}

async function load(): Promise<void> {
  try {
    const list = await models();
    fill(list);
    forget.hidden = !hasKey();
    if (list.length === 0) main.replaceChildren(make("p", { class: "notice" }, "The server has no models."), again());
    else showModel(select.value, false);
  } catch (error) {
    if (error instanceof ApiFault && error.status === 401) {
      main.replaceChildren(make("p", { class: "notice" }, "This server asks for an API key."), button("Enter a key", askKey, { class: "primary" }));
      return askKey();
    }
    const message = error instanceof ApiFault ? error.message : sentence(String(error));
    main.replaceChildren(make("p", { class: "fault", attributes: { role: "alert" } }, message), again());
  }
}

function again(): HTMLButtonElement {
  return button("Try again", () => void load(), { class: "primary" });
}

function askKey(): void {
  const fault = find("key-fault");
  fault.hidden = !hasKey();
  fault.textContent = hasKey() ? "The server does not take that key." : "";
  keyInput.value = "";
  if (!dialog.open) dialog.showModal();
  keyInput.focus();
}

find<HTMLFormElement>("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(keyInput.value.trim());
  keyInput.value = "";
  dialog.close();
  if (view && known.length > 0) void models().then(fill, () => askKey()); // the conversation stays
  else void load();
  forget.hidden = !hasKey();
});
forget.addEventListener("click", () => {
  useKey("");
  location.reload();
});
select.addEventListener("change", () => {
  showModel(select.value, true);
  announce(`Model ${select.value}`);
});
toggle.addEventListener("click", () => {
  wanted = aside.hidden;
  showSettings(wanted);
  if (wanted && !wide.matches) aside.querySelector("textarea")?.focus();
});
wide.addEventListener("change", () => showSettings(!aside.hidden && wide.matches));
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.defaultPrevented || dialog.open) return;
  if (view?.escape()) return event.preventDefault();
  if (aside.hidden || wide.matches) return;
  wanted = false;
  showSettings(false);
  toggle.focus();
});

aside.append(settings.element);
startTheme();
void load();
