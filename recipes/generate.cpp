#include "recipes/generate.h"

#include "fit/paths.h"
#include "fit/ready_model.h"

namespace tailor {

Result<TextModel> open_text_model(const GenerateRequest& request, const ProgressFn& progress) {
  if (request.model.empty())
    return TextModel::load_package(request.package, request.threads, request.template_variables);
  TAILOR_TRY(const ModelInfo info, resolve_model(request.model, default_models_directory()));
  TAILOR_TRY(const std::filesystem::path gguf, ready_gguf(info, ModelUse::kServing, progress));
  return TextModel::load(gguf, {},
                         {.form = request.raw ? ExampleForm::kCompletion : ExampleForm::kChat,
                          .templates = {request.template_variables, ""}},
                         request.threads);
}

}  // namespace tailor
