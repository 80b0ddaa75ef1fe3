#pragma once
/// Decoders tuned by tailor-tune: the rows that those learn from that answer with the tokens of a label, and how all
/// are served. The adapter is folded into the model's file, and labels are scored as for zero-shot prompting.

#include <filesystem>

#include "core/token_file.h"
#include "fit/prepared_data.h"
#include "fit/token_rows.h"
#include "fit/tuned_model.h"
#include "infer/torch_worker.h"
#include "prompt/prompt_classifier.h"

namespace tailor {

/// Prompts of the rows, and the answers of the labels (their end is always learnt), in the tokens that serving will
/// use, block by block. Row numbers are ids of the data.
Status tokenize_for_decoder(const PreparedData& data, const ReadyModel& model, const TokenParts& parts, int threads,
                            const TakeTokenBlock& take);

/// What llama.cpp loads; bottlenecks: tailor-tune answers with them.
struct DecoderFiles {
  std::filesystem::path gguf, soft_prompt, bottlenecks;  // the last two may be empty: none
};
/// Those of a package, whose base model is `gguf`.
DecoderFiles decoder_files_of(const std::filesystem::path& package, const std::filesystem::path& gguf);
/// For LabelScorer and Generator.
TorchWorkerFiles worker_files(const DecoderFiles& files);
/// Trained tensors take their places in a copy of `model` in `directory`, an adapter is folded into one, a soft prompt
/// is put there beside it. `matrices` that training changed: kF16 or kF32.
Result<DecoderFiles> make_decoder_files(const TuneRun& run, const ReadyModel& model,
                                        const std::filesystem::path& directory, TensorType matrices = TensorType::kF16);
/// Completes a package whose files make_decoder_files() made: the adapter as others read it.
Result<TunedPackage> package_adapter(const TuneRun& run, const ReadyModel& model, const std::filesystem::path& package);

/// The tuned model as it is served. An adapter is folded into `model`, a soft prompt put beside it: in `directory`,
/// which exists.
Result<PromptClassifier> load_tuned_decoder(const PreparedData& data, const ReadyModel& model, const TuneRun& run,
                                            const std::filesystem::path& directory, int threads,
                                            TensorType matrices = TensorType::kF16);

/// Completes the package of `classifier`, which load_tuned_decoder() has begun there.
Result<TunedPackage> package_tuned_decoder(const TuneRun& run, const ReadyModel& model,
                                           const PromptClassifier& classifier, const std::filesystem::path& package);

}  // namespace tailor
