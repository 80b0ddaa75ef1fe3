#pragma once
/// A decoder that answers with text: a package that `tailor tune` made of conversations or completions, or a base
/// model as it is. Training and serving ask in the same tokens, see prompt/chat_encoder.h.

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/chat_examples.h"
#include "fit/package.h"
#include "fit/text_encoder.h"
#include "infer/generator.h"
#include "prompt/chat_encoder.h"

namespace tailor {

inline constexpr const char* kTextFile = "text.json";  // of such a package

/// What text.json states.
struct TextSettings {
  ExampleForm form = ExampleForm::kChat;
  int max_tokens = 256;             // of an answer, where the caller does not say
  TemplateSettings templates = {};  // chat: what the model learnt with

  Json to_json() const;
  static Result<TextSettings> load(const std::filesystem::path& package);
  Status save(const std::filesystem::path& package) const;
};

/// What is asked: a conversation (chat), or a text to go on with (completion, text).
struct TextRequest {
  std::vector<ChatMessage> messages;
  std::string raw;
  Json tools = nullptr;  // that the model may call: a list as in ChatTemplate::render(), or null
};

/// The question of last_question(), as it is asked.
TextRequest last_request(const ChatExample& example);

/// Threads: one call at a time an object.
class TextModel {
 public:
  /// `soft_prompt` may be empty, and so may `worker`.
  static Result<TextModel> load(const std::filesystem::path& gguf, const std::filesystem::path& soft_prompt,
                                const TextSettings& settings, int threads, const TorchWorkerFiles& worker = {});
  /// `variables` take the place of those that the model learnt with, by name; then note() says so.
  /// Errors: those of read_package(); a package that answers with labels.
  static Result<TextModel> load_package(const std::filesystem::path& package, int threads,
                                        const Json& variables = Json::object());

  Result<TokenList> prompt(const TextRequest& request) const;
  Result<GeneratedText> answer(const TextRequest& request, const SamplingOptions& options, const TextSink& sink,
                               const CancelToken& cancel);
  /// Many, computed together, in order; see Generator::generate_all() for how they compare with one alone.
  Result<std::vector<GeneratedText>> answers(std::span<const TextRequest> requests, const SamplingOptions& options,
                                             const AnswerSink& ended, const CancelToken& cancel);
  /// -log p of each row's learnt tokens, in nats; computed together.
  Result<std::vector<std::vector<double>>> losses(std::span<const ScoredText> rows, const DoneFn& done,
                                                  const CancelToken& cancel);

  const TextSettings& settings() const { return settings_; }
  const PackageManifest& manifest() const { return manifest_; }  // empty for a base model
  const ChatEncoder& encoder() const { return *encoder_; }
  const std::string& note() const { return note_; }  // for the user; empty: none
  int max_context() const { return generator_->max_context(); }
  int vocabulary() const { return generator_->vocabulary(); }

 private:
  TextSettings settings_;
  PackageManifest manifest_;
  std::unique_ptr<Generator> generator_;  // stays where the encoder's tokenizer is
  std::unique_ptr<ChatEncoder> encoder_;
  std::string note_;
};

}  // namespace tailor
