#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>

#include "apps/tailor/verbs.h"
#include "core/json.h"
#include "fit/budget.h"
#include "fit/paths.h"
#include "model/catalogue.h"

namespace tailor {
namespace {

Json to_json(const ModelInfo& m) {
  return Json{{"id", m.id},
              {"kind", name_of(m.kind)},
              {"architecture", m.architecture},
              {"path", m.path.string()},
              {"parameters", m.parameters},
              {"context_length", m.context_length},
              {"embedding_length", m.embedding_length},
              {"layers", m.layers},
              {"vocabulary", m.vocabulary},
              {"file_type", m.file_type},
              {"bytes", m.bytes},
              {"licence", m.licence},
              {"languages", m.languages},
              {"source", m.source}};
}

Result<int> list(bool json) {
  const auto models = list_models(default_models_directory());
  if (json) {
    Json all = Json::array();
    for (const auto& m : models) all.push_back(to_json(m));
    fmt::print("{}\n", dump_json(all, 2));
    return 0;
  }
  if (models.empty()) {
    return Error{ErrorCode::kNotFound, "there are no models in " + default_models_directory().string(),
                 "`make setup` fetches the two default models"};
  }
  fmt::print("{:<28} {:<8} {:<8} {:>7} {:>8} {:>8} {}\n", "name", "kind", "type", "params", "size", "context",
             "licence");
  for (const auto& m : models) {
    fmt::print("{:<28} {:<8} {:<8} {:>6.0f}M {:>8} {:>8} {}\n", m.id, name_of(m.kind), m.file_type,
               static_cast<double>(m.parameters) / 1e6, human_bytes(static_cast<double>(m.bytes)),
               m.max_sequence_length, m.licence.empty() ? "unknown" : m.licence);
  }
  fmt::print(
      "\nAny GGUF file of the llama family or Hugging Face directory of the BERT family works too: --model PATH\n");
  return 0;
}

Result<int> show(const std::string& name, bool json) {
  TAILOR_TRY(const ModelInfo m, resolve_model(name, default_models_directory()));
  TAILOR_TRY(const std::string hash, model_hash(m));
  if (json) {
    Json out = to_json(m);
    out["sha256"] = hash;
    fmt::print("{}\n", dump_json(out, 2));
    return 0;
  }
  fmt::print(
      "name          {}\nkind          {} ({})\nparameters    {:.1f} M in {} layers, embedding {}\nvocabulary    "
      "{}\ncontext       {} tokens (made for {})\nweights       {} as {}\n"
      "licence       {}\nlanguages     {}\nsource        {}\npath          {}\nsha256        {}\n",
      m.id, name_of(m.kind), m.architecture, static_cast<double>(m.parameters) / 1e6, m.layers, m.embedding_length,
      m.vocabulary, m.max_sequence_length, m.context_length, human_bytes(static_cast<double>(m.bytes)), m.file_type,
      m.licence.empty() ? "not stated" : m.licence,
      m.languages.empty() ? "not stated" : fmt::format("{}", fmt::join(m.languages, ", ")),
      m.source.empty() ? "yours" : m.source, m.path.string(), hash);
  return 0;
}

}  // namespace

void add_models(CLI::App& app, Invocation& invocation) {
  auto* verb = app.add_subcommand("models", "base models on this machine");
  verb->require_subcommand(1);
  verb->footer("Examples:  tailor models list\n           tailor models show smollm2-135m-instruct");
  auto json = std::make_shared<bool>(false);
  auto name = std::make_shared<std::string>();
  auto* list_verb = verb->add_subcommand("list", "the models there are");
  list_verb->add_flag("--json", *json, "as JSON");
  list_verb->callback([&invocation, json] { invocation.run = [json] { return list(*json); }; });
  auto* show_verb = verb->add_subcommand("show", "everything known of one model");
  show_verb->add_option("model", *name, "name, GGUF file or Hugging Face directory")->required()->type_name("MODEL");
  show_verb->add_flag("--json", *json, "as JSON");
  show_verb->callback([&invocation, json, name] { invocation.run = [json, name] { return show(*name, *json); }; });
}

}  // namespace tailor
