#include "fit/tuned_decoder.h"

#include <fmt/format.h>

#include "core/bottleneck_file.h"
#include "core/files.h"
#include "core/soft_prompt_file.h"
#include "infer/label_scorer.h"
#include "model/merge_adapter.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr const char* kAdapterFile = "adapter.gguf";

PromptSettings prompt_settings() {
  PromptSettings s;
  s.prompt.end = LabelEnd::kEndOfTurn;
  return s;
}

bool has(const fs::path& directory, const char* file) {
  std::error_code ignored;
  return fs::exists(directory / file, ignored);
}

}  // namespace

Status tokenize_for_decoder(const PreparedData& data, const ReadyModel& model, const TokenParts& parts, int threads,
                            const TakeTokenBlock& take) {
  TAILOR_TRY(const LabelScorer scorer, LabelScorer::load(model.gguf, {.threads = 1}));
  TAILOR_TRY(const PromptBuilder builder,
             PromptBuilder::make(scorer.tokenizer(), "", scorer.max_context(), prompt_settings().prompt,
                                 readable_labels(data.label_names())));
  TokenFile empty;
  empty.n_labels = static_cast<std::int32_t>(data.label_names().size());
  empty.vocab_size = scorer.vocabulary();
  for (const auto& answer : builder.labels()) empty.add_label(answer);
  return make_token_rows(
      parts.size(), threads, empty,
      [&](std::size_t row, TokenFile& block) -> Status {
        const auto [id, part] = parts.at(row);
        thread_local std::string scratch;
        TAILOR_CHECK(builder.append_prompt(data.dataset.texts[id], scratch, block.tokens));
        end_row(block, data.dataset.labels[id], part, id);
        return {};
      },
      take);
}

DecoderFiles decoder_files_of(const fs::path& package, const fs::path& gguf) {
  DecoderFiles files{gguf, {}, {}};
  if (has(package, kSoftPromptFile)) files.soft_prompt = package / kSoftPromptFile;
  const fs::path bottlenecks = package / kAdapterDirectory / kBottleneckFile;
  std::error_code ignored;
  if (fs::exists(bottlenecks, ignored)) files.bottlenecks = bottlenecks;
  return files;
}

TorchWorkerFiles worker_files(const DecoderFiles& files) {
  return {find_tune_program(), files.bottlenecks};
}

Result<DecoderFiles> make_decoder_files(const TuneRun& run, const ReadyModel& model, const fs::path& directory,
                                        TensorType matrices) {
  DecoderFiles files;
  if (has(run.directory, kSoftPromptFile)) {
    files.gguf = model.gguf;
    files.soft_prompt = directory / kSoftPromptFile;
    TAILOR_CHECK(tailor::copy_file(run.directory / kSoftPromptFile, files.soft_prompt));
    return files;
  }
  if (has(run.directory, kBottleneckFile)) {
    files.bottlenecks = directory / kAdapterDirectory / kBottleneckFile;
    TAILOR_CHECK(make_directories(directory / kAdapterDirectory));
    TAILOR_CHECK(tailor::copy_file(run.directory / kBottleneckFile, files.bottlenecks));
    if (!has(run.directory, kTrainedWeights)) {
      files.gguf = model.gguf;
      return files;
    }
  }
  files.gguf = directory / kTunedFile;
  if (has(run.directory, kTrainedWeights)) {
    TAILOR_CHECK(write_tuned_gguf(model.gguf, run.directory / kTrainedWeights, matrices, files.gguf));
  } else {
    const Status merged = merge_adapter(model.gguf, run.directory / kAdapterFile, files.gguf, matrices);
    if (!merged) {
      const Json best = run.result.value("best", Json());
      return Error{merged.error().code,
                   best.is_object() ? fmt::format("{} (the best evaluation was that of step {} of {})",
                                                  merged.error().message, dump_json(best.value("step", Json())),
                                                  dump_json(run.result.value("steps", Json())))
                                    : merged.error().message,
                   "train longer, or with a higher --learning-rate"};
    }
  }
  return files;
}

Result<TunedPackage> package_adapter(const TuneRun& run, const ReadyModel& model, const fs::path& package) {
  const fs::path adapter = package / kAdapterDirectory;
  for (const char* name : {kAdapterFile, "adapter_config.json", "adapter_model.safetensors"}) {
    if (!has(run.directory, name)) continue;  // whole tensors and a prefix have no layout but ours
    TAILOR_CHECK(make_directories(adapter));
    TAILOR_CHECK(tailor::copy_file(run.directory / name, adapter / name));
  }
  if (has(package, kSoftPromptFile)) return TunedPackage{model.base, tree_bytes(package / kSoftPromptFile)};
  if (has(adapter, kBottleneckFile)) {
    const bool changed = has(package, kTunedFile);
    return TunedPackage{changed ? tuned_base(model.base, kTunedFile) : model.base,
                        tree_bytes(adapter / kBottleneckFile)};
  }
  const std::uint64_t bytes = has(adapter, "adapter_model.safetensors")
                                  ? tree_bytes(adapter / "adapter_model.safetensors")
                                  : tree_bytes(run.directory / kTrainedWeights);
  return TunedPackage{tuned_base(model.base, kTunedFile), bytes};
}

Result<PromptClassifier> load_tuned_decoder(const PreparedData& data, const ReadyModel& model, const TuneRun& run,
                                            const fs::path& directory, int threads, TensorType matrices) {
  TAILOR_TRY(const DecoderFiles files, make_decoder_files(run, model, directory, matrices));
  TAILOR_TRY(LabelScorer scorer,
             LabelScorer::load(files.gguf,
                               {.threads = threads, .soft_prompt = files.soft_prompt, .worker = worker_files(files)}));
  return PromptClassifier::make(std::move(scorer), prompt_settings(), data.label_names(), {});
}

Result<TunedPackage> package_tuned_decoder(const TuneRun& run, const ReadyModel& model,
                                           const PromptClassifier& classifier, const fs::path& package) {
  TAILOR_CHECK(classifier.save(package));
  return package_adapter(run, model, package);
}

}  // namespace tailor
