#pragma once
/// What a job asks for: the values of job.json (docs/TUNE_JOB.md), with their defaults and ranges.

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace tailor::tune {

enum class Task {
  kSequenceClassification,
  kCausalLmLabels,       // a decoder answers with the tokens of a label
  kCausalLm,             // a decoder goes on as the masked tokens of the rows do
  kRegression,           // an encoder with one output: a number
  kMultiLabel,           // an encoder with an output for each label: which of them hold
  kTokenClassification,  // an encoder that answers each word of a text with a label
  kSpanExtraction,       // an encoder that answers with a piece of the text: its first and last token
};
/// Whether the task is one of encoders with a head.
constexpr bool for_encoders(Task task) {
  return task == Task::kSequenceClassification || task == Task::kRegression || task == Task::kMultiLabel ||
         task == Task::kTokenClassification || task == Task::kSpanExtraction;
}
enum class Schedule { kLinear, kCosine, kConstant };  // after warm-up: to 0 on a line, to 0 on half a cosine, flat
enum class Pooling { kMean, kCls };
/// What frozen matrices are kept as. Arithmetic and what is trained are f32 either way.
enum class Dtype { kF32, kBf16 };
enum class Device { kCpu, kCuda };
/// Of tensors on the processor: our own kernels, or the plain ATen formulation that every other device has.
enum class Kernels { kNative, kPortable };
enum class Metric { kAccuracy, kMacroF1, kLoss, kMicroF1, kEntityF1 };

struct LoraSettings {
  int r = 16;                                                // 1 .. smallest dimension of a target
  double alpha = 32;                                         // the update is scaled by alpha / r
  double dropout = 0.0;                                      // [0, 1), on the adapter's input
  std::vector<std::string> target_modules = {"all-linear"};  // GGUF or Hugging Face module names, or "all-linear"
  /// Modules that are trained whole beside the adapters, by the last part of Hugging Face's name or GGUF's. Decoders:
  /// the table of words and the output layer. Encoders: the head, which is always trained.
  std::vector<std::string> modules_to_save;
  /// Decoders: tokens whose rows of the table of words (and of an output layer of its own) are trained beside the
  /// adapters, all other rows staying as they are; PEFT's trainable_token_indices. Each once.
  std::vector<std::int32_t> trained_tokens;
  bool rslora = false;      // scaled by alpha / sqrt(r): Kalajdzievski, arXiv:2312.03732
  bool dora = false;        // direction by LoRA, length learnt beside it: Liu et al., arXiv:2402.09353
  bool pissa = false;       // starts at the largest singular values of the weight: Meng et al., arXiv:2404.02948
  double b_rate_scale = 1;  // learning rate of B over that of A: LoRA+, Hayou et al., arXiv:2402.12354

  double scale() const { return alpha / (rslora ? std::sqrt(static_cast<double>(r)) : static_cast<double>(r)); }
};

/// Where bottleneck adapters sit.
enum class AdapterPlace {
  kHoulsby,   // after attention and after feed-forward, norms trained too: Houlsby et al., arXiv:1902.00751
  kPfeiffer,  // after feed-forward alone: Pfeiffer et al., arXiv:2005.00247
  kParallel,  // beside feed-forward, scaled: He et al., arXiv:2110.04366
};

struct AdapterSettings {
  int size = 48;     // of the bottleneck; 1 .. width
  double scale = 1;  // of what the adapter adds
};

enum class SoftPromptKind { kPrompt, kEncoded, kPrefix };  // prompt tuning, P-tuning, prefix tuning
enum class SoftPromptEncoder { kMlp, kLstm };
enum class SoftPromptInit {
  kLabels,      // the labels' words, then those of the first rows
  kVocabulary,  // drawn from the commonest tokens: Lester et al., arXiv:2104.08691, section 3.2
  kRandom,      // no token's: normal, of the size that the commonest tokens' values have
};

struct SoftPromptSettings {
  int tokens = 20;                                      // virtual ones
  SoftPromptEncoder encoder = SoftPromptEncoder::kMlp;  // of P-tuning
  int hidden = 0;                                       // of a network; 0: the model's width
  SoftPromptInit init = SoftPromptInit::kLabels;        // where the virtual tokens begin
  std::vector<std::int32_t> start;  // real tokens whose values are the first ones, in the place of `init`; where they
                                    // are too few, they come again
  // A network during training that serving does not see: of prompt tuning E + MLP(E) (Razdaibiedina et al.,
  // arXiv:2305.03937), of prefix tuning an MLP that makes all keys and values (Li and Liang, arXiv:2101.00190).
  bool reparameterise = false;
};

/// Method distill: Hinton et al., arXiv:1503.02531; tune/distillation_loss.h has the formula.
struct DistillSettings {
  double temperature = 2;  // > 0; above 1 a teacher's small probabilities count for more
  double alpha = 0.7;      // [0, 1], weight of the teacher's probabilities; the rest is the label's
};

struct Settings {
  double learning_rate = 2e-4;             // peak; > 0
  double head_learning_rate = 0;           // of the classification head; 0: learning_rate
  double epochs = 3;                       // > 0, may be a fraction
  std::int64_t max_steps = 0;              // 0: epochs decide; else it decides
  std::int64_t batch_size = 32;            // rows of one optimiser step
  std::int64_t micro_batch_tokens = 4096;  // at most so many tokens pass the model at once (a longer row passes alone)
  double weight_decay = 0.01;              // decoupled; not on biases and norms
  double warmup_ratio = 0.1;               // of all steps, [0, 1)
  Schedule schedule = Schedule::kLinear;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double dropout = 0.1;          // [0, 1), on the pooled vector
  double hidden_dropout = 0.0;   // [0, 1), after attention and feed-forward; 0 suits rows seen a few times only
  double label_smoothing = 0.0;  // [0, 1)
  double max_grad_norm = 1.0;    // 0: no clipping
  double ema_decay = 0.0;        // [0, 1): of the moving average of the values that is kept (weight_average.h); 0: none
  double head_init_std = 0.02;   // of the head's first weights
  LoraSettings lora;
  AdapterSettings adapter;
  SoftPromptSettings soft_prompt;
  DistillSettings distill;
  double temperature = 0.07;  // method contrastive: cosines are divided by it
  int hard_negatives = 1;     // method contrastive: near texts of other labels that each row brings along; 0: none
  Dtype dtype = Dtype::kF32;  // of frozen matrices; kBf16: half the memory, rounded to 8 bits
  bool activation_checkpointing = false;  // layers keep their input alone and are computed again in the backward pass
  int upper_layers = 2;                   // method upper-layers: how many are trained, 1 .. all
  Pooling pooling = Pooling::kMean;
};

struct Job {
  Task task = Task::kSequenceClassification;
  std::string method = "full";   // a name of methods()
  std::filesystem::path base;    // GGUF, safetensors, or a Hugging Face directory
  std::filesystem::path tokens;  // core/token_file.h
  std::int32_t n_labels = 0;     // 0: as the token file says; else it must agree
  Settings settings;
  double evaluate_every_epochs = 1;       // 0: not by epochs
  std::int64_t evaluate_every_steps = 0;  // 0: not by steps
  int early_stopping_patience = 0;        // evaluations without a better metric; 0: off
  Metric metric = Metric::kAccuracy;
  std::uint64_t seed = 0;
  Device device = Device::kCpu;
  Kernels kernels = Kernels::kNative;
  int threads = 0;                          // 0: all cores this process may use
  double deadline_seconds = 0;              // of training, from the start of this process; 0: none
  double checkpoint_every_seconds = 60;     // 0: only when interrupted
  std::int64_t checkpoint_every_steps = 0;  // 0: not by steps
  std::int64_t pause_after_steps = 0;       // stops there with a checkpoint, to be resumed; 0: never
  std::int64_t log_every_steps = 1;         // step events
  std::filesystem::path head;  // weights.safetensors of an earlier run whose head is the start; empty: random
  /// Low-rank methods: an adapter that is gone on with, as PEFT or llama.cpp lays it out; empty: a new one.
  std::filesystem::path adapter;
  std::filesystem::path out;         // made where absent
  bool resume = false;               // go on from out/checkpoint where there is one
  bool export_merged = false;        // adapters: also write the merged weights
  bool export_hugging_face = false;  // encoders: also write the whole tuned encoder as transformers reads it
};

}  // namespace tailor::tune
