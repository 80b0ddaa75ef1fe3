#pragma once
/// A decoder with what is trained of it, as the trainer sees it: it learns to answer a prompt with the tokens of its
/// label, and answers with the probabilities of all labels.

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/token_file.h"
#include "tune/adapter_start.h"
#include "tune/decoder.h"
#include "tune/decoder_adapters.h"
#include "tune/decoder_lora.h"
#include "tune/decoder_states.h"
#include "tune/methods.h"
#include "tune/soft_prompt.h"
#include "tune/trainable_model.h"
#include "tune/whole_modules.h"

namespace tailor::tune::decoder {

/// As the settings say.
LoraConfig lora_config(const LoraSettings& settings);

/// What is trained of a decoder.
struct DecoderOptions {
  std::optional<LoraConfig> lora;
  std::optional<AdapterStart> start;  // of lora
  std::optional<SoftPromptKind> soft_prompt;
  WeightStorage storage = WeightStorage::kFloat;  // of what is frozen
  TensorFilter trained;                           // whole tensors; empty: none
  std::vector<WholeModule> whole;                 // of those, what is saved with the adapter
  bool scales = false;                            // IA3
  std::optional<AdapterPlace> bottlenecks;
};

/// Rows of the token file are prompts with their answers (the loss mask tells which tokens are learnt) or, in a file
/// without masks, prompts alone, to which the tokens of the label are added.
/// weight() of a row is the number of its learnt tokens, as in PyTorch's mean over labels that are not -100.
class DecoderClassifier final : public TrainableModel {
 public:
  /// Borrows what `input` names. Throws tailor::Exception: a model that cannot be tuned, settings out of range, rows
  /// longer than the model's context, token ids beyond its vocabulary, labels without answers.
  DecoderClassifier(const ModelInput& input, DecoderOptions options);

  ParameterSet& parameters() override { return parameters_; }
  double weight(RowSpan rows) const override;
  LossSum forward_backward(RowSpan rows, const StepContext& context) override;
  /// Probabilities of the labels: softmax over the log-probabilities of their whole answers (label_scores). The loss is
  /// that of the row's own answer. Task causal-lm: the loss of each row's learnt tokens.
  Predictions predict(RowSpan rows) override;
  void parameters_changed(double decay) override;
  Result<std::vector<std::string>> save(const std::filesystem::path& dir) override;
  nlohmann::ordered_json describe() const override;

  /// Log-probability of every answer after every row's prompt, [rows, answers], as score_answers() says. Any answers,
  /// also others than the file's.
  std::vector<float> label_scores(RowSpan rows, std::span<const std::span<const std::int32_t>> answers,
                                  std::span<const std::int32_t> exact = {});

 private:
  struct Row {
    std::vector<std::int32_t> tokens;
    std::vector<std::uint8_t> mask;
  };
  std::span<const std::int32_t> prompt(std::int64_t row) const;
  std::span<const std::int32_t> answer(std::int64_t row) const;  // empty: no label
  Row whole(std::int64_t row) const;     // virtual tokens, prompt and answer (or the file's own mask)
  void add_soft_prompt(Row& row) const;  // in front
  SoftPrompt::Start soft_start();
  Predictions row_losses(RowSpan rows);
  bool merges_whole() const;  // of low-rank updates: what llama.cpp's layout of an adapter cannot hold
  bool distils() const { return job_.method == "distill" && job_.task == Task::kCausalLmLabels; }
  LossSum distil(RowSpan rows, const StepContext& context);  // decoder_distill.cpp

  const TokenFile& file_;
  const Job& job_;
  const DecoderOptions options_;
  ParameterSet parameters_;
  std::unique_ptr<DecoderWeights> weights_;
  std::optional<LoraAdapters> lora_;
  DecoderAdapters adapters_;
  Decoder decoder_;
  std::optional<SoftPrompt> soft_prompt_;
  std::optional<FrozenStates> states_;  // of the lower layers, where only upper ones are trained
};

/// For the table of methods.
std::unique_ptr<TrainableModel> make_full(const ModelInput& input);
std::unique_ptr<TrainableModel> make_upper_layers(const ModelInput& input);
std::unique_ptr<TrainableModel> make_bitfit(const ModelInput& input);
std::unique_ptr<TrainableModel> make_layernorm(const ModelInput& input);
std::unique_ptr<TrainableModel> make_lora(const ModelInput& input);   // base as f32
std::unique_ptr<TrainableModel> make_qlora(const ModelInput& input);  // base left in its GGUF blocks
std::unique_ptr<TrainableModel> make_ia3(const ModelInput& input);
std::unique_ptr<TrainableModel> make_houlsby(const ModelInput& input);
std::unique_ptr<TrainableModel> make_pfeiffer(const ModelInput& input);
std::unique_ptr<TrainableModel> make_parallel(const ModelInput& input);
std::unique_ptr<TrainableModel> make_prompt_tuning(const ModelInput& input);
std::unique_ptr<TrainableModel> make_p_tuning(const ModelInput& input);
std::unique_ptr<TrainableModel> make_prefix_tuning(const ModelInput& input);

}  // namespace tailor::tune::decoder
