#include "fit/text_model.h"

#include <fmt/format.h>

#include "core/files.h"
#include "fit/chat_data.h"
#include "fit/serving.h"
#include "fit/tuned_decoder.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFormat = "tailor-text";
constexpr int kVersion = 2;  // 1: without what templates are rendered with

struct FormName {
  ExampleForm form;
  const char* name;
};
constexpr FormName kForms[] = {
    {ExampleForm::kChat, "chat"}, {ExampleForm::kCompletion, "completion"}, {ExampleForm::kText, "text"}};

}  // namespace

Json TextSettings::to_json() const {
  Json json{{"format", kFormat}, {"version", kVersion}, {"max_tokens", max_tokens}};
  if (form == ExampleForm::kChat) {
    json["template_variables"] = templates.variables;
    json["template_date"] = templates.date;
  }
  for (const FormName& f : kForms) {
    if (f.form == form) json["form"] = f.name;
  }
  return json;
}

Result<TextSettings> TextSettings::load(const fs::path& package) {
  TAILOR_TRY(const Json json, read_json(package / kTextFile));
  TextSettings settings;
  const auto damaged = [&](const std::string& what) {
    return Error{ErrorCode::kCorruptData, fmt::format("{}: {}", (package / kTextFile).string(), what),
                 "make the package again"};
  };
  const Json version = json.is_object() ? json.value("version", Json()) : Json();
  if (!json.is_object() || json.value("format", Json()) != kFormat || (version != 1 && version != kVersion))
    return damaged(fmt::format("expected format {}, version 1 or {}", kFormat, kVersion));
  const Json form = json.value("form", Json()), most = json.value("max_tokens", Json());
  const auto* known =
      std::find_if(std::begin(kForms), std::end(kForms), [&](const FormName& f) { return form == f.name; });
  if (known == std::end(kForms)) return damaged("form should be chat, completion or text");
  if (!most.is_number_integer() || most.get<std::int64_t>() < 1 || most.get<std::int64_t>() > (1 << 24))
    return damaged("max_tokens should be a whole number from 1");
  settings.form = known->form;
  settings.max_tokens = most.get<int>();
  const Json variables = json.value("template_variables", Json(Json::object()));
  const Json date = json.value("template_date", Json(""));
  if (!variables.is_object()) return damaged("template_variables should be a map");
  if (!date.is_string()) return damaged("template_date should be a text");
  settings.templates = {variables, date.get<std::string>()};
  return settings;
}

Status TextSettings::save(const fs::path& package) const {
  return write_json_atomic(package / kTextFile, to_json());
}

Result<TextModel> TextModel::load(const fs::path& gguf, const fs::path& soft_prompt, const TextSettings& settings,
                                  int threads, const TorchWorkerFiles& worker) {
  TextModel model;
  model.settings_ = settings;
  TAILOR_TRY(Generator generator,
             Generator::load(gguf, {.threads = threads, .soft_prompt = soft_prompt, .worker = worker}));
  model.generator_ = std::make_unique<Generator>(std::move(generator));
  TAILOR_TRY(const GgufFile file, GgufFile::open(gguf));
  TAILOR_TRY(ChatEncoder encoder, make_chat_encoder(model.generator_->tokenizer(), model_templates(file), settings.form,
                                                    settings.templates, gguf.filename().string(), model.note_));
  model.encoder_ = std::make_unique<ChatEncoder>(std::move(encoder));
  return model;
}

Result<TextModel> TextModel::load_package(const fs::path& package, int threads, const Json& variables) {
  TAILOR_TRY(PackageManifest manifest, read_package(package));
  if (manifest.serving != kServeText) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("{} answers with one of {} labels, not with text", package.string(), manifest.labels.size()),
        fmt::format("tailor predict {} \"your text\"", package.string())};
  }
  TAILOR_TRY(TextSettings settings, TextSettings::load(package));
  std::string note;
  for (const auto& [name, value] : variables.items()) {
    Json& learnt = settings.templates.variables[name];
    if (learnt != value)
      note += fmt::format("{}the model learnt with {}, and is asked with {}", note.empty() ? "" : "; ",
                          learnt.is_null() ? "no " + name : name + " = " + dump_json(learnt), dump_json(value));
    learnt = value;
  }
  const DecoderFiles files = decoder_files_of(package, base_model_path(package, manifest.base));
  TAILOR_TRY(TextModel model, load(files.gguf, files.soft_prompt, settings, threads, worker_files(files)));
  model.manifest_ = std::move(manifest);
  if (!note.empty()) model.note_ += (model.note_.empty() ? "" : "; ") + note;
  return model;
}

TextRequest last_request(const ChatExample& example) {
  Question question = last_question(example);
  return {std::move(question.messages), std::move(question.raw), std::move(question.tools)};
}

Result<TokenList> TextModel::prompt(const TextRequest& request) const {
  if (settings_.form == ExampleForm::kChat) return encoder_->prompt(request.messages, request.tools);
  return encoder_->raw_prompt(request.raw);
}

Result<GeneratedText> TextModel::answer(const TextRequest& request, const SamplingOptions& options,
                                        const TextSink& sink, const CancelToken& cancel) {
  TAILOR_TRY(const TokenList tokens, prompt(request));
  return generator_->generate(tokens, options, sink, cancel);
}

Result<std::vector<GeneratedText>> TextModel::answers(std::span<const TextRequest> requests,
                                                      const SamplingOptions& options, const AnswerSink& ended,
                                                      const CancelToken& cancel) {
  std::vector<TokenList> prompts;
  for (const TextRequest& request : requests) {
    auto tokens = prompt(request);
    if (!tokens.has_value()) return of_text(tokens.error(), prompts.size(), requests.size());
    prompts.push_back(std::move(*tokens));
  }
  return generator_->generate_all(prompts, options, ended, cancel);
}

Result<std::vector<std::vector<double>>> TextModel::losses(std::span<const ScoredText> rows, const DoneFn& done,
                                                           const CancelToken& cancel) {
  return generator_->losses_all(rows, done, cancel);
}

}  // namespace tailor
