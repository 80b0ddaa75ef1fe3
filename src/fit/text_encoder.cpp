#include "fit/text_encoder.h"

#include <fmt/format.h>

#include "model/gguf_file.h"

namespace tailor {

ModelTemplates model_templates(const GgufFile& file) {
  const auto text = [&](const char* key) {
    const GgufValue* value = file.find(key);
    return value != nullptr && value->as_string() ? std::string(*value->as_string()) : std::string();
  };
  return {text("tokenizer.chat_template"), text("tokenizer.chat_template.tool_use")};
}

Result<ChatEncoder> make_chat_encoder(const Tokenizer& tokenizer, const ModelTemplates& templates, ExampleForm form,
                                      const TemplateSettings& settings, const std::string& model_name,
                                      std::string& note) {
  if (form != ExampleForm::kChat) {
    if (settings.variables.empty()) return ChatEncoder(tokenizer, std::nullopt);
    return Error{ErrorCode::kInvalidArgument, "template variables are for conversations: other texts have no template",
                 "leave them out"};
  }
  const std::string& source = templates.chat.empty() ? ChatTemplate::chatml() : templates.chat;
  if (templates.chat.empty()) {
    note = fmt::format("{} has no chat template of its own: ChatML is taken, in training as in serving", model_name);
  }
  ChatTemplateOptions options{.variables = settings.variables, .tool_use = templates.tool_use};
  if (!settings.date.empty()) {
    options.now = read_template_date(settings.date);
    if (!options.now)
      return Error{
          ErrorCode::kInvalidArgument,
          fmt::format("the templates' date is \"{}\", expected one such as 2026-06-01T12:00:00", settings.date), ""};
  }
  auto made = ChatTemplate::make(source, tokenizer, options);
  if (!made)
    return Error{made.error().code, fmt::format("{}: {}", model_name, made.error().message), made.error().hint};
  return ChatEncoder(tokenizer, std::move(*made));
}

Result<TextEncoder> TextEncoder::load(const std::filesystem::path& gguf, ExampleForm form,
                                      const TemplateSettings& settings) {
  TextEncoder out;
  ModelTemplates templates;
  {
    TAILOR_TRY(const GgufFile file, GgufFile::open(gguf));
    TAILOR_TRY(const std::string architecture, file.architecture());
    TAILOR_TRY(const std::int64_t context, file.integer(architecture + ".context_length"));
    out.max_context_ = static_cast<int>(context);
    templates = model_templates(file);
  }
  TAILOR_TRY(Tokenizer tokenizer, Tokenizer::load(gguf));
  out.tokenizer_ = std::make_unique<const Tokenizer>(std::move(tokenizer));
  TAILOR_TRY(ChatEncoder encoder,
             make_chat_encoder(*out.tokenizer_, templates, form, settings, gguf.filename().string(), out.note_));
  out.encoder_ = std::make_unique<const ChatEncoder>(std::move(encoder));
  return out;
}

}  // namespace tailor
