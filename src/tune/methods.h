#pragma once
/// The methods of tuning, one row of a table each: what is trained of which architecture, and good first settings.

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

#include "core/result.h"
#include "core/token_file.h"
#include "tune/settings.h"
#include "tune/trainable_model.h"
#include "tune/weights.h"

namespace tailor::tune {

/// What a model is made from; borrowed by the model for its life.
struct ModelInput {
  const Job& job;
  const BaseWeights& weights;
  const TokenFile& file;
  std::function<void(std::int64_t rows_done)> preparing;  // progress before the first step; may be empty
  at::Device device = at::kCPU;
};

using ModelBuilder = std::unique_ptr<TrainableModel> (*)(const ModelInput&);  // throws tailor::Exception

/// Which of the settings' parts a method uses.
enum class MethodFamily { kWeights, kLora, kAdapter, kSoftPrompt };

struct Method {
  std::string_view name;
  std::string_view summary;
  void (*set_defaults)(Settings&, Task);  // before the job's own settings are read
  ModelBuilder encoder;  // sequence classification on an encoder's architecture; null: not for encoders
  ModelBuilder decoder;  // causal-lm-labels and causal-lm; null: not for decoders
  MethodFamily family = MethodFamily::kWeights;
};

const std::vector<Method>& methods();
const Method* find_method(std::string_view name);  // nullptr where unknown
std::vector<std::string_view> method_names();

/// Picks the builder by the file's architecture and the task; errors name what is supported.
Result<std::unique_ptr<TrainableModel>> make_model(const ModelInput& input);

}  // namespace tailor::tune
