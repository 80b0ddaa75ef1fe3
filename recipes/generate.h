#pragma once
/// Recipe: open what answers with text.

#include <filesystem>
#include <string>

#include "core/progress.h"
#include "core/result.h"
#include "fit/text_model.h"

namespace tailor {

struct GenerateRequest {
  std::filesystem::path package;             // or
  std::string model;                         // a base model by name or path
  Json template_variables = Json::object();  // of the chat template; of a package: instead of what it learnt with
  bool raw = false;                          // base model: go on with the text as it stands, without its chat template
  int threads = 0;
};

Result<TextModel> open_text_model(const GenerateRequest& request, const ProgressFn& progress);

}  // namespace tailor
