#include "fit/machine_speed.h"

#include <cblas.h>

#include <algorithm>

#include "core/files.h"
#include "core/stopwatch.h"
#include "fit/method_support.h"
#include "infer/embedder.h"
#include "model/import.h"
#include "model/requantize.h"

extern "C" void openblas_set_num_threads(int threads);

namespace tailor {
namespace {

constexpr double kMeasureSeconds = 0.25;  // the best of so long: threads start, clocks rise, others take their turn

double gemm_gflops(int threads) {
  openblas_set_num_threads(threads);
  constexpr int kSize = 768;
  const std::vector<float> a(kSize * kSize, 0.5f), b(kSize * kSize, 0.25f);
  std::vector<float> c(kSize * kSize);
  double best = 0;
  for (const Stopwatch all; all.seconds() < kMeasureSeconds;) {
    const Stopwatch one;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, kSize, kSize, kSize, 1.0f, a.data(), kSize, b.data(), kSize,
                0.0f, c.data(), kSize);
    best = std::max(best, 2.0 * kSize * kSize * kSize / one.seconds() / 1e9);
  }
  return best;
}

/// Plain business English, about 25 tokens each.
std::vector<std::string> sample_texts(std::size_t n) {
  const std::string text =
      "Hello, I would like to know when my order will arrive, because the tracking page has not changed since Monday. "
      "Thank you.";
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < n; ++i) texts.push_back(text.substr(0, text.size() - i % 20));
  return texts;
}

Result<double> tokens_per_second(const std::filesystem::path& gguf, bool encoder, int threads,
                                 const CancelToken& cancel) {
  TAILOR_TRY(Embedder embedder, load_embedder(gguf, threads));
  const auto texts = sample_texts(encoder ? 64 : 12);
  EmbedStats stats;
  TAILOR_TRY(const Matrix warm, embedder.embed(std::span(texts).first(2), {}, cancel));
  double rate = 0;
  for (const Stopwatch all; all.seconds() < kMeasureSeconds;) {
    const Stopwatch one;
    TAILOR_TRY(const Matrix timed, embedder.embed(texts, {}, cancel, &stats));
    rate = std::max(rate, static_cast<double>(stats.tokens) / one.seconds());
  }
  return rate;
}

}  // namespace

Result<MachineSpeed> measure_machine(const std::vector<TrialModel>& models, int threads, const CancelToken& cancel) {
  MachineSpeed speed;
  speed.gemm_gflops = gemm_gflops(threads);
  bool encoder_done = false, decoder_done = false;
  for (const auto& model : models) {
    const bool encoder = model.info.kind == ModelKind::kEncoder;
    if (encoder ? encoder_done : decoder_done) continue;
    TAILOR_TRY(const std::filesystem::path gguf, ready_gguf(model.info, ModelUse::kServing, {}));
    TAILOR_TRY(const double rate, tokens_per_second(gguf, encoder, threads, cancel));
    if (encoder) {
      speed.encoder_tokens_per_second = rate;
      speed.encoder_parameters = static_cast<double>(model.info.parameters);
      encoder_done = true;
    } else {
      speed.decoder_tokens_per_second = speed.prompting_tokens_per_second = rate;
      TAILOR_TRY(const std::filesystem::path prompted, ready_gguf(model.info, ModelUse::kPrompting, {}));
      if (prompted != gguf) {
        TAILOR_TRY(speed.prompting_tokens_per_second, tokens_per_second(prompted, encoder, threads, cancel));
      }
      speed.decoder_parameters = static_cast<double>(model.info.parameters);
      decoder_done = true;
    }
  }
  return speed;
}

}  // namespace tailor
