#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "apps/tailor/verbs.h"
#include "core/json.h"
#include "fit/budget.h"
#include "fit/paths.h"
#include "fit/ready_model.h"
#include "model/catalogue.h"
#include "model/export_hugging_face.h"
#include "model/import.h"
#include "model/merge_peft.h"

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
  fmt::print("\nA GGUF file or a Hugging Face directory of the families that Tailor knows works too: --model PATH\n");
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

template <typename T>
using Names = std::map<std::string, T>;
const Names<ImportType> kImportTypes = {{"source", ImportType::kSource},
                                        {"f32", ImportType::kF32},
                                        {"f16", ImportType::kF16},
                                        {"bf16", ImportType::kBf16},
                                        {"q8_0", ImportType::kQ8_0}};
const Names<ExportType> kExportTypes = {
    {"source", ExportType::kSource}, {"f32", ExportType::kF32}, {"f16", ExportType::kF16}, {"bf16", ExportType::kBf16}};

template <typename T>
std::vector<std::string> names_of(const Names<T>& types) {
  std::vector<std::string> names;
  for (const auto& [name, type] : types) names.push_back(name);
  return names;
}

Result<int> import_model(const std::string& dir, const std::string& out, ImportType type) {
  if (!is_hugging_face_directory(dir)) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: not a Hugging Face model directory", dir),
                 "give a directory with config.json, *.safetensors and the tokenizer's files"};
  }
  std::error_code ec;
  if (std::filesystem::exists(out, ec)) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: there is a file already", out), "give a new name"};
  }
  TAILOR_CHECK(import_hugging_face(dir, out, {.type = type}));
  TAILOR_TRY(const ModelInfo m, describe_model(out));
  fmt::print("{}: {} {}, {:.1f} M parameters, {} as {}\n", out, m.architecture, name_of(m.kind),
             static_cast<double>(m.parameters) / 1e6, human_bytes(static_cast<double>(m.bytes)), m.file_type);
  return 0;
}

Result<int> export_model(const std::string& name, const std::string& out, ExportType type) {
  TAILOR_TRY(const ModelInfo m, resolve_model(name, default_models_directory()));
  if (m.is_hugging_face) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: is a Hugging Face directory already", m.path.string()),
                 ""};
  }
  TAILOR_TRY(const ExportReport report, export_hugging_face(m.path, out, {.type = type}));
  fmt::print("{}: {}\n", out, fmt::join(report.files, ", "));
  for (const std::string& note : report.notes) fmt::print("note: {}\n", note);
  return 0;
}

Result<int> merge_model(const std::string& name, const std::string& adapter, const std::string& out) {
  std::error_code ec;
  if (std::filesystem::exists(out, ec))
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: there is a file already", out), "give a new name"};
  TAILOR_TRY(const ModelInfo base, resolve_model(name, default_models_directory()));
  TAILOR_TRY(const std::filesystem::path gguf, ready_gguf(base, ModelUse::kTraining, {}));
  TAILOR_TRY(const PeftMerge merged, merge_peft_adapter(gguf, adapter, out));
  TAILOR_TRY(const ModelInfo m, describe_model(out));
  fmt::print("{}: {} with {} folded in, {} as {}\n", out, base.id, adapter, human_bytes(static_cast<double>(m.bytes)),
             m.file_type);
  if (!merged.left_out.empty())
    fmt::print("note: {} stand behind the encoder and were left out\n", fmt::join(merged.left_out, ", "));
  return 0;
}

}  // namespace

void add_models(CLI::App& app, Invocation& invocation) {
  auto* verb = app.add_subcommand("models", "base models on this machine");
  verb->require_subcommand(1);
  verb->footer(
      "Examples:  tailor models list\n           tailor models show smollm2-135m-instruct\n"
      "           tailor models import my-model/ --out my-model.gguf\n"
      "           tailor models export my-model.gguf --to hf --out my-model-hf/\n"
      "           tailor models merge my-model.gguf my-adapter/ --out merged.gguf");
  auto json = std::make_shared<bool>(false);
  auto name = std::make_shared<std::string>();
  auto* list_verb = verb->add_subcommand("list", "the models there are");
  list_verb->add_flag("--json", *json, "as JSON");
  list_verb->callback([&invocation, json] { invocation.run = [json] { return list(*json); }; });
  auto* show_verb = verb->add_subcommand("show", "everything known of one model");
  show_verb->add_option("model", *name, "name, GGUF file or Hugging Face directory")->required()->type_name("MODEL");
  show_verb->add_flag("--json", *json, "as JSON");
  auto out = std::make_shared<std::string>();
  auto* import_verb = verb->add_subcommand("import", "a Hugging Face directory into a GGUF file");
  auto import_type = std::make_shared<std::string>("source");
  import_verb->add_option("directory", *name, "config.json, *.safetensors, tokenizer")->required()->type_name("DIR");
  import_verb->add_option("--out", *out, "the GGUF file to write")->required()->type_name("FILE");
  import_verb->add_option("--type", *import_type, "of the matrices; source: as the directory has them")
      ->check(CLI::IsMember(names_of(kImportTypes)))
      ->default_str("source");
  import_verb->callback([&invocation, name, out, import_type] {
    invocation.run = [name, out, import_type] { return import_model(*name, *out, kImportTypes.at(*import_type)); };
  });
  auto* export_verb = verb->add_subcommand("export", "a decoder's GGUF file into a Hugging Face directory");
  auto export_type = std::make_shared<std::string>("source");
  auto format = std::make_shared<std::string>("hf");
  export_verb->add_option("model", *name, "name or GGUF file")->required()->type_name("MODEL");
  export_verb->add_option("--to", *format, "hf: config.json, *.safetensors, tokenizer")
      ->check(CLI::IsMember({"hf"}))
      ->default_str("hf");
  export_verb->add_option("--out", *out, "the directory to write")->required()->type_name("DIR");
  export_verb->add_option("--type", *export_type, "of the weights; source: as the model's origin had them")
      ->check(CLI::IsMember(names_of(kExportTypes)))
      ->default_str("source");
  export_verb->callback([&invocation, name, out, export_type] {
    invocation.run = [name, out, export_type] { return export_model(*name, *out, kExportTypes.at(*export_type)); };
  });
  auto adapter = std::make_shared<std::string>();
  auto* merge_verb = verb->add_subcommand("merge", "a model with an adapter that PEFT saved folded in");
  merge_verb->add_option("model", *name, "name, GGUF file or Hugging Face directory")->required()->type_name("MODEL");
  merge_verb->add_option("adapter", *adapter, "adapter_config.json, adapter_model.safetensors")
      ->required()
      ->type_name("DIR");
  merge_verb->add_option("--out", *out, "the GGUF file to write")->required()->type_name("FILE");
  merge_verb->callback([&invocation, name, adapter, out] {
    invocation.run = [name, adapter, out] { return merge_model(*name, *adapter, *out); };
  });
  add_models_optimize(*verb, invocation);
  show_verb->callback([&invocation, json, name] { invocation.run = [json, name] { return show(*name, *json); }; });
}

}  // namespace tailor
