/** Elements in few words. Text goes in as text; nothing here parses HTML. */

type Child = Node | string | null;

interface Properties {
  class?: string;
  id?: string;
  attributes?: Record<string, string>;
  on?: Partial<{ [E in keyof HTMLElementEventMap]: (event: HTMLElementEventMap[E]) => void }>;
}

export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Properties = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (properties.class) element.className = properties.class;
  if (properties.id) element.id = properties.id;
  for (const [name, value] of Object.entries(properties.attributes ?? {})) element.setAttribute(name, value);
  for (const [name, listener] of Object.entries(properties.on ?? {}))
    element.addEventListener(name, listener as EventListener);
  for (const child of children) if (child !== null) element.append(child);
  return element;
}

export function button(text: string, press: () => void, properties: Properties = {}): HTMLButtonElement {
  const element = make("button", { ...properties, on: { click: press } }, text);
  element.type = "button";
  return element;
}

/** An element that index.html holds. */
export function find<T extends HTMLElement = HTMLElement>(id: string): T {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`index.html has no #${id}`);
  return element as T;
}
