/// Shell completion, made from the command line's own description so that it cannot go stale.

#include <fmt/format.h>

#include <memory>
#include <string>

#include "apps/tailor/verbs.h"

namespace tailor {
namespace {

std::string options_of(const CLI::App& verb) {
  std::string words;
  for (const CLI::Option* option : verb.get_options()) {
    for (const auto& name : option->get_lnames()) words += (words.empty() ? "--" : " --") + name;
  }
  for (const CLI::App* sub : verb.get_subcommands(nullptr)) words += " " + sub->get_name();
  return words;
}

std::vector<const CLI::App*> verbs_of(const CLI::App& app) {
  std::vector<const CLI::App*> verbs;
  for (const CLI::App* sub : app.get_subcommands(nullptr)) {
    if (!sub->get_group().empty()) verbs.push_back(sub);
  }
  return verbs;
}

std::string bash(const CLI::App& app) {
  std::string names, cases;
  for (const CLI::App* verb : verbs_of(app)) {
    names += (names.empty() ? "" : " ") + verb->get_name();
    cases += fmt::format("    {}) words=\"{}\" ;;\n", verb->get_name(), options_of(*verb));
  }
  return fmt::format(
      "_tailor() {{\n  local word=\"${{COMP_WORDS[COMP_CWORD]}}\" words=\"\"\n  if [ \"$COMP_CWORD\" -eq 1 ]; then\n   "
      " COMPREPLY=($(compgen -W \"{} --help --version\" -- \"$word\"))\n    return\n  fi\n"
      "  case \"${{COMP_WORDS[1]}}\" in\n{}  esac\n  COMPREPLY=($(compgen -W \"$words\" -- \"$word\") $(compgen -f -- "
      "\"$word\"))\n}}\ncomplete -o filenames -F _tailor tailor\n",
      names, cases);
}

std::string zsh(const CLI::App& app) {
  return "#compdef tailor\nautoload -U +X bashcompinit && bashcompinit\n" + bash(app);
}

std::string fish(const CLI::App& app) {
  std::string out;
  const auto quoted = [](std::string text) {
    for (std::size_t at = 0; (at = text.find('\'', at)) != std::string::npos; at += 2) text.replace(at, 1, "\\'");
    return "'" + text + "'";
  };
  for (const CLI::App* verb : verbs_of(app)) {
    out += fmt::format("complete -c tailor -n __fish_use_subcommand -a {} -d {}\n", verb->get_name(),
                       quoted(verb->get_description()));
    for (const CLI::Option* option : verb->get_options()) {
      for (const auto& name : option->get_lnames()) {
        out += fmt::format("complete -c tailor -n '__fish_seen_subcommand_from {}' -l {} -d {}\n", verb->get_name(),
                           name, quoted(option->get_description()));
      }
    }
  }
  return out;
}

}  // namespace

void add_completion(CLI::App& app, Invocation& invocation) {
  auto* verb = app.add_subcommand("completion", "completion for your shell");
  auto shell = std::make_shared<std::string>();
  verb->add_option("shell", *shell, "bash, zsh or fish")->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
  verb->footer("Example:  tailor completion bash >> ~/.bashrc");
  verb->callback([&app, &invocation, shell] {
    invocation.run = [&app, shell]() -> Result<int> {
      fmt::print("{}", *shell == "bash" ? bash(app) : *shell == "zsh" ? zsh(app) : fish(app));
      return 0;
    };
  });
}

}  // namespace tailor
