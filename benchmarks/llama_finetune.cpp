// Full fine-tuning by llama.cpp, as its example llama-finetune does it (F32 weights and key-value cache, AdamW, a step
// for every row), on rows of a token file: the peer of full tuning by tailor-tune.
// Run:   bench_llama_finetune --model smollm2.gguf --tokens rows.safetensors --work DIR --order 3 0 2 --threads 2
// Rows have one length; a row of n + 1 tokens is n to read and n to predict. The first step is not timed. Prints one
// JSON line.

#include <ggml-opt.h>
#include <llama.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "core/process.h"
#include "core/token_file.h"
#include "model/llama_runtime.h"
#include "timing.h"

namespace {

using namespace tailor;

struct Record {
  std::vector<bench::Seconds> ends;  // of each step, since the first began
  std::vector<double> mean_losses;   // of the steps up to this one
};

bench::Stopwatch* g_watch;  // ggml's callback carries no argument of ours
Record g_record;

void on_step(bool, ggml_opt_context_t, ggml_opt_dataset_t, ggml_opt_result_t result, std::int64_t, std::int64_t,
             std::int64_t) {
  double loss = 0, uncertainty = 0;
  ggml_opt_result_loss(result, &loss, &uncertainty);
  g_record.ends.push_back(g_watch->elapsed());
  g_record.mean_losses.push_back(loss);
}

ggml_opt_optimizer_params adamw(void* rate) {
  ggml_opt_optimizer_params p = ggml_opt_get_default_optimizer_params(nullptr);
  p.adamw.alpha = *static_cast<const float*>(rate);
  p.adamw.wd = 0.01f;
  return p;
}

/// The model's weights as F32, which is what llama.cpp trains.
std::string as_f32(const std::string& model, const std::filesystem::path& work) {
  const std::string out = (work / "f32.gguf").string();
  if (std::filesystem::exists(out)) return out;
  llama_model_quantize_params params = llama_model_quantize_default_params();
  params.ftype = LLAMA_FTYPE_ALL_F32;
  params.allow_requantize = true;
  if (llama_model_quantize(model.c_str(), (out + ".part").c_str(), &params) != 0)
    throw Exception({ErrorCode::kInternal, "llama.cpp does not write " + model + " as F32", ""});
  std::filesystem::rename(out + ".part", out);
  return out;
}

void run(const std::string& gguf, const TokenFile& rows, const std::vector<std::size_t>& order, int threads,
         float rate) {
  const auto steps = static_cast<std::int64_t>(order.size());
  const auto n = static_cast<std::int64_t>(rows.row(0).size()) - 1;
  llama_model_params model_params = llama_model_default_params();
  model_params.load_mode = LLAMA_LOAD_MODE_NONE;  // weights that can be written
  const LlamaModelPtr model(llama_model_load_from_file(gguf.c_str(), model_params));
  llama_context_params params = llama_context_default_params();
  params.n_ctx = params.n_batch = params.n_ubatch = static_cast<std::uint32_t>(n);
  params.n_threads = params.n_threads_batch = threads;
  params.type_k = params.type_v = GGML_TYPE_F32;
  params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
  llama_context* context = llama_init_from_model(model.get(), params);
  ggml_opt_dataset_t dataset = ggml_opt_dataset_init(GGML_TYPE_I32, GGML_TYPE_I32, n, n, steps, 1);
  for (std::int64_t i = 0; i < steps; ++i) {
    const auto row = rows.row(order[static_cast<std::size_t>(i)]);
    const auto bytes = static_cast<std::size_t>(n) * sizeof(std::int32_t);
    std::memcpy(static_cast<std::int32_t*>(ggml_opt_dataset_data(dataset)->data) + i * n, row.data(), bytes);
    std::memcpy(static_cast<std::int32_t*>(ggml_opt_dataset_labels(dataset)->data) + i * n, row.data() + 1, bytes);
  }
  llama_opt_params opt{};
  opt.param_filter = llama_opt_param_filter_all;
  opt.get_opt_pars = adamw;
  opt.get_opt_pars_ud = &rate;
  opt.optimizer_type = GGML_OPT_OPTIMIZER_TYPE_ADAMW;
  llama_opt_init(context, model.get(), opt);
  ggml_opt_result_t trained = ggml_opt_result_init(), evaluated = ggml_opt_result_init();
  bench::Stopwatch watch;
  g_watch = &watch;
  llama_opt_epoch(context, dataset, trained, evaluated, steps, on_step, on_step);
  ggml_opt_result_free(trained);
  ggml_opt_result_free(evaluated);
  ggml_opt_dataset_free(dataset);
  llama_free(context);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("full fine-tuning by llama.cpp");
  std::string model, tokens;
  std::filesystem::path work = ".";
  std::vector<std::size_t> order;
  int threads = 1;
  float rate = 2e-5f;
  app.add_option("--model", model)->required();
  app.add_option("--tokens", tokens)->required();
  app.add_option("--work", work, "where the F32 model is written");
  app.add_option("--order", order, "rows, one a step")->required();
  app.add_option("--threads", threads);
  app.add_option("--learning-rate", rate);
  CLI11_PARSE(app, argc, argv);
  try {
    init_llama().value();
    const TokenFile rows = read_token_file(tokens).value();
    run(as_f32(model, work), rows, order, threads, rate);
    const auto& ends = g_record.ends;
    if (ends.size() < 2) throw Exception({ErrorCode::kInternal, "llama.cpp took fewer than two steps", ""});
    const auto timed = static_cast<double>((ends.size() - 1) * (rows.row(0).size() - 1));
    std::printf(
        "{\"steps\": %zu, \"tokens_per_cpu_second\": %.2f, \"tokens_per_second\": %.2f, \"peak_mb\": %.0f, \"losses\": "
        "[",
        ends.size(), timed / (ends.back().cpu - ends.front().cpu), timed / (ends.back().wall - ends.front().wall),
        static_cast<double>(usage_so_far().peak_memory_bytes) / (1 << 20));
    double before = 0;
    for (std::size_t i = 0; i < ends.size(); ++i) {  // of each step, from the means
      const double sum = g_record.mean_losses[i] * static_cast<double>(i + 1);
      std::printf("%s%.6f", i > 0 ? ", " : "", sum - before);
      before = sum;
    }
    std::printf("]}\n");
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
