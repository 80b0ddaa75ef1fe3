#pragma once
/// Recipe: a fine-tuning job of the server, by the recipe tune.

#include "serve/fine_tuning.h"

namespace tailor {

/// Trains a LoRA adapter on conversations. The run's directory is that of `tailor tune`, report and all.
class TuneRecipeTuner final : public FineTuner {
 public:
  explicit TuneRecipeTuner(int threads) : threads_(threads) {}
  /// kUnavailable where there is no tailor-tune.
  Status ready() const override;
  Result<std::string> check(const std::filesystem::path& file, const std::string& name) override;
  Result<FineTuned> train(const FineTuneSpec& spec, const FineTuneProgress& progress,
                          const CancelToken& cancel) override;

 private:
  int threads_;
};

}  // namespace tailor
