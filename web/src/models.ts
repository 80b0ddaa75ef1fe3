/** The models in groups, as the list shows them. */

import type { Model } from "./api.ts";

export interface Group {
  title: string;
  models: Model[];
}

export function grouped(models: Model[]): Group[] {
  const out = new Map<string, Model[]>();
  const add = (title: string, model: Model) => out.set(title, [...(out.get(title) ?? []), model]);
  const packages = (m: Model) => m.parent === null && m.meta?.method !== undefined;
  for (const model of models.filter((m) => m.parent === null && !packages(m))) add("Base models", model);
  for (const model of models.filter((m) => m.parent !== null)) add(`Adapters of ${model.parent}`, model);
  for (const model of models.filter(packages)) add("Packages", model);
  return [...out].map(([title, list]) => ({ title, models: list }));
}

export type Use = "text" | "labels" | "tags" | "spans" | "none";

export function useOf(model: Model): Use {
  if (model.capabilities.includes("classify")) return "labels";
  if (model.capabilities.includes("tag")) return "tags";
  if (model.capabilities.includes("extract")) return "spans";
  return model.capabilities.includes("chat") || model.capabilities.includes("completions") ? "text" : "none";
}
