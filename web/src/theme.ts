/** Light, dark, or as the system has it. */

import { find } from "./dom.ts";

const kTheme = "tailor.theme";
const kChoices = ["system", "light", "dark"] as const;
type Theme = (typeof kChoices)[number];

export function startTheme(): void {
  const control = find<HTMLButtonElement>("theme");
  let theme = kChoices.find((choice) => choice === localStorage.getItem(kTheme)) ?? "system";
  const show = (chosen: Theme) => {
    theme = chosen;
    if (chosen === "system") {
      delete document.documentElement.dataset["theme"];
      localStorage.removeItem(kTheme);
    } else {
      document.documentElement.dataset["theme"] = chosen;
      localStorage.setItem(kTheme, chosen);
    }
    control.textContent = `Theme: ${chosen}`;
  };
  show(theme);
  control.addEventListener("click", () => show(kChoices[(kChoices.indexOf(theme) + 1) % kChoices.length]!));
}
