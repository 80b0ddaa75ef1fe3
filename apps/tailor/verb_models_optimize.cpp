// models quantize and models optimize.

#include <fmt/format.h>

#include <memory>

#include "apps/tailor/verbs.h"
#include "fit/budget.h"
#include "fit/paths.h"
#include "fit/ready_model.h"
#include "model/catalogue.h"
#include "model/requantize.h"
#include "recipes/optimize.h"

namespace tailor {
namespace {

Result<int> quantize(const std::string& model, const std::string& type, const std::string& out, int threads) {
  const auto quant = quant_type(type);
  if (!quant)
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("--type {}: expected f16, q8_0, q6_k, q5_k_m, q4_k_m or q4_0", type), ""};
  TAILOR_TRY(const ModelInfo info, resolve_model(model, default_models_directory()));
  TAILOR_TRY(const std::filesystem::path in, ready_gguf(info, ModelUse::kTraining, {}));
  std::error_code ignored;
  if (std::filesystem::exists(out, ignored))
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: there is a file already", out), "give a new name"};
  TAILOR_CHECK(requantize(in, out, *quant, threads));
  TAILOR_TRY(const ModelInfo made, describe_model(out));
  fmt::print("{}: {} as {} (was {} as {})\n", out, human_bytes(static_cast<double>(made.bytes)), made.file_type,
             human_bytes(static_cast<double>(info.bytes)), info.file_type);
  return 0;
}

void print_row(const FormatFigures& f) {
  fmt::print("{:<8} {:>8} {:>9.0f} {:>9.0f} {:>9.2f} {:>8.4f} {:>8.1f}% {:>8.4f} {:>8.1f}%  {}\n", f.name,
             human_bytes(static_cast<double>(f.bytes)), f.speed.prompt_tokens_per_second,
             f.speed.answer_tokens_per_second, f.seconds, f.quality.loss, 100 * f.quality.accuracy, f.quality.kl,
             100 * f.quality.same_choice,
             f.original ? "the original"
                        : fmt::format("{:+.4f} ({:+.4f} to {:+.4f}){}", f.difference.value, f.difference.low,
                                      f.difference.high, f.worse ? ", worse" : ""));
  std::fflush(stdout);
}

Result<int> optimize(const OptimizeOptions& options, bool json, const CancelToken& cancel) {
  if (!json)
    fmt::print("{:<8} {:>8} {:>9} {:>9} {:>9} {:>8} {:>9} {:>8} {:>9}  {}\n", "type", "size", "prompt/s", "answer/s",
               "request s", "loss", "accuracy", "KL", "same", "loss against the original");
  TAILOR_TRY(const OptimizeSummary summary, optimize_model(
                                                options,
                                                [&](const FormatFigures& f) {
                                                  if (!json) print_row(f);
                                                },
                                                cancel));
  if (json) {
    fmt::print("{}\n", dump_json(to_json(summary), 2));
    return 0;
  }
  const FormatFigures *chosen = nullptr, *original = &summary.formats.front();
  for (const FormatFigures& f : summary.formats) chosen = f.chosen ? &f : chosen;
  fmt::print(
      "\nOf {} tokens in {} rows. Kept: {}, {:.2f} x as fast as the original on a prompt of {} and an answer of {} "
      "tokens.\n"
      "`tailor serve --model {}` takes it from now on; delete {} to undo that.\n",
      summary.tokens, summary.rows, chosen->name, original->seconds / chosen->seconds, options.prompt_tokens,
      options.answer_tokens, options.model, summary.record.string());
  return 0;
}

}  // namespace

void add_models_optimize(CLI::App& models, Invocation& invocation) {
  auto model = std::make_shared<std::string>();
  auto type = std::make_shared<std::string>("q4_0");
  auto out = std::make_shared<std::string>();
  auto threads = std::make_shared<int>(0);
  auto* quantize_verb = models.add_subcommand("quantize", "a model with its weights in another type");
  quantize_verb->add_option("model", *model, "name, GGUF file or Hugging Face directory")
      ->required()
      ->type_name("MODEL");
  quantize_verb->add_option("--type", *type, "f16, q8_0, q6_k, q5_k_m, q4_k_m or q4_0")
      ->capture_default_str()
      ->type_name("TYPE");
  quantize_verb->add_option("--out", *out, "the GGUF file to write")->required()->type_name("FILE");
  quantize_verb->add_option("--threads", *threads, "threads (all cores)");
  quantize_verb->callback([&invocation, model, type, out, threads] {
    invocation.run = [model, type, out, threads] { return quantize(*model, *type, *out, *threads); };
  });
  auto options = std::make_shared<OptimizeOptions>();
  auto json = std::make_shared<bool>(false);
  auto* optimize_verb =
      models.add_subcommand("optimize", "the weight type that is fastest on this machine and no worse, measured");
  optimize_verb->add_option("model", options->model, "name, GGUF file or Hugging Face directory of a decoder")
      ->required()
      ->type_name("MODEL");
  optimize_verb
      ->add_option("--data", options->data, "validation data: conversations and the like (JSONL, CSV), or a text file")
      ->required()
      ->type_name("FILE");
  optimize_verb->add_option("--tokens", options->tokens, "whose predictions are compared, at most")
      ->capture_default_str()
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  optimize_verb
      ->add_option("--max-loss", options->max_loss,
                   "nats a token by which the upper end of the 95 % interval may be worse than the original")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber.description(""))
      ->type_name("X");
  optimize_verb->add_option("--prompt-tokens", options->prompt_tokens, "of the request that is timed")
      ->capture_default_str()
      ->check(CLI::Range(1, 8192).description(""))
      ->type_name("N");
  optimize_verb->add_option("--answer-tokens", options->answer_tokens, "of the request that is timed")
      ->capture_default_str()
      ->check(CLI::Range(1, 8192).description(""))
      ->type_name("N");
  optimize_verb->add_option("--threads", options->threads, "threads (all cores)");
  optimize_verb->add_flag("--json", *json, "as JSON");
  optimize_verb->footer("Example:  tailor models optimize smollm2-135m-instruct --data validation.jsonl");
  optimize_verb->callback([&invocation, options, json] {
    invocation.run = [&invocation, options, json] { return optimize(*options, *json, invocation.cancel); };
  });
}

}  // namespace tailor
