#include "infer/generator.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/system.h"
#include "infer/llama_context.h"
#include "infer/log_softmax.h"
#include "infer/soft_prompt.h"
#include "infer/text_stream.h"

namespace tailor {
namespace {

constexpr int kUbatch = 512;            // tokens computed together
constexpr std::size_t kLossSlice = 64;  // tokens whose logits are in memory at once: 4 bytes times the vocabulary each

}  // namespace

struct Generator::Impl {
  std::shared_ptr<const LoadedModel> model;
  GeneratorOptions options;
  int threads = 1;
  int max_context = 0;
  SoftPrompt soft;  // at positions 0 … n-1
  LlamaContextPtr context;
  int cells = 0;
  std::vector<std::int32_t> ends;
  TokenList held;                      // in the context, after the soft prompt
  std::unique_ptr<TorchWorker> torch;  // computes instead of the context, where there is one

  /// A context for so many tokens of prompt and answer.
  Status prepare(int tokens);
  /// Makes the context hold exactly `tokens`. Returns how many were there already.
  Result<std::size_t> hold(std::span<const std::int32_t> tokens);
  /// Appends to what the context holds, at most kUbatch; logits of all of `tokens` where asked.
  Status decode(std::span<const std::int32_t> tokens, bool outputs);
  Status check(std::span<const std::int32_t> tokens) const;
  /// The token after `last`, which follows what is held.
  Result<std::int32_t> next(std::int32_t last, Sampler& sampler, const CancelToken& cancel);
};

Status Generator::Impl::prepare(int tokens) {
  if (torch) return {};
  const int need = (soft.length() + tokens + 255) / 256 * 256;
  const int limit = model->short_context();
  const bool same_factors = limit == 0 || (cells > limit) == (need > limit);
  if (context != nullptr && cells >= need && same_factors) return {};
  context.reset();  // before the new one is made: memory
  held.clear();
  cells = need;
  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<std::uint32_t>(cells);
  params.n_batch = params.n_ubatch = kUbatch;
  params.n_seq_max = 1;
  params.n_threads = params.n_threads_batch = threads;
  params.type_k = params.type_v = options.f32_cache ? GGML_TYPE_F32 : GGML_TYPE_F16;
  params.flash_attn_type = options.flash_attention ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
  params.no_perf = true;
  TAILOR_TRY(context, model->make_context(params));
  return decode_soft_prompt(context.get(), soft, kUbatch);
}

Status Generator::Impl::check(std::span<const std::int32_t> tokens) const {
  for (const std::int32_t t : tokens) {
    if (t < 0 || t >= model->vocabulary())
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("token {} is not one of the model's {}", t, model->vocabulary()), ""};
  }
  return {};
}

Status Generator::Impl::decode(std::span<const std::int32_t> tokens, bool outputs) {
  DecodeBatch batch;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    batch.add(tokens[i], soft.length() + static_cast<int>(held.size() + i), {0, 1}, outputs);
  }
  TAILOR_CHECK(batch.decode(context.get(), model->name()));
  held.insert(held.end(), tokens.begin(), tokens.end());
  return {};
}

Result<std::size_t> Generator::Impl::hold(std::span<const std::int32_t> tokens) {
  const auto [end, other] = std::mismatch(held.begin(), held.end(), tokens.begin(), tokens.end());
  const auto common = static_cast<std::size_t>(end - held.begin());
  if (torch) {  // which keeps what this text and the last have in common
    held.assign(tokens.begin(), tokens.end());
    return common;
  }
  llama_memory_seq_rm(llama_get_memory(context.get()), 0, soft.length() + static_cast<int>(common), -1);
  held.resize(common);
  for (std::size_t first = common; first < tokens.size(); first += kUbatch)
    TAILOR_CHECK(decode(tokens.subspan(first, std::min<std::size_t>(kUbatch, tokens.size() - first)), false));
  return common;
}

Result<std::int32_t> Generator::Impl::next(std::int32_t last, Sampler& sampler, const CancelToken& cancel) {
  std::vector<float> computed;
  std::span<float> logits;
  if (torch) {
    held.push_back(last);
    TAILOR_TRY(computed, torch->logits(held, cancel));
    logits = computed;
  } else {
    TAILOR_CHECK(decode({&last, 1}, true));
    logits = {llama_get_logits_ith(context.get(), -1), static_cast<std::size_t>(model->vocabulary())};
  }
  TAILOR_TRY(const SampledToken token, sampler.next(logits));
  return token.token;
}

Generator::Generator(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Generator::Generator(Generator&&) noexcept = default;
Generator& Generator::operator=(Generator&&) noexcept = default;
Generator::~Generator() = default;

int Generator::max_context() const {
  return impl_->max_context - impl_->soft.length();
}
const Tokenizer& Generator::tokenizer() const {
  return impl_->model->tokenizer();
}
int Generator::vocabulary() const {
  return impl_->model->vocabulary();
}

Result<Generator> Generator::load(const std::filesystem::path& gguf, const GeneratorOptions& options) {
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  impl->threads = options.threads > 0 ? options.threads : system_info().cores;
  TAILOR_TRY(impl->model, LoadedModel::load(gguf, {}));
  TAILOR_CHECK(impl->model->require_decoder("text can be generated"));
  if (!options.soft_prompt.empty()) {
    TAILOR_TRY(impl->soft, SoftPrompt::load(options.soft_prompt));
  }
  const int trained = llama_model_n_ctx_train(impl->model->get());
  impl->max_context = options.max_context > 0 ? std::min(options.max_context, trained) : trained;
  impl->ends = impl->model->end_tokens();
  if (!options.worker.empty()) {
    TAILOR_TRY(impl->torch, TorchWorker::start(gguf, options.worker, impl->threads));
  }
  return Generator(std::move(impl));
}

Result<GeneratedText> Generator::generate(std::span<const std::int32_t> prompt, const SamplingOptions& options,
                                          const TextSink& sink, const CancelToken& cancel) {
  Impl& self = *impl_;
  if (prompt.empty())
    return Error{ErrorCode::kInvalidArgument, "there is nothing to go on from: the prompt is empty", ""};
  TAILOR_CHECK(self.check(prompt));
  const int room = max_context() - static_cast<int>(prompt.size());
  if (room < 1) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("the prompt has {} tokens; the model reads {}, its answer included", prompt.size(), max_context()),
        "shorten the prompt"};
  }
  const int most = std::min(options.max_tokens, room);
  TAILOR_CHECK(self.prepare(static_cast<int>(prompt.size()) + most));
  GeneratedText out;
  out.prompt_tokens = prompt.size();
  TAILOR_TRY(out.reused_tokens, self.hold(prompt.first(prompt.size() - 1)));
  Sampler sampler(options, prompt, self.ends, 0, nullptr);
  TextStream stream(options.stop, options.keep_stop);
  bool refused = false;
  const auto wanted = [&] {
    const std::string piece = stream.take();
    if (!piece.empty() && sink && !refused) refused = !sink(piece);
    return !refused;
  };
  out.finish = FinishReason::kLength;
  std::int32_t next = prompt.back();
  for (int n = 0; n < most; ++n) {
    if (cancel.cancelled()) return Error{ErrorCode::kCancelled, "the answer was interrupted", ""};
    TAILOR_TRY(next, self.next(next, sampler, cancel));
    out.tokens.push_back(next);
    if (tokenizer().ends_generation(next) || !stream.add(tokenizer().decode({&next, 1})) || !wanted()) {
      out.finish = FinishReason::kStop;
      break;
    }
  }
  if (stream.stop().empty()) stream.finish();
  (void)wanted();
  out.text = stream.text();
  return out;
}

Result<std::vector<double>> Generator::losses(std::span<const std::int32_t> tokens, std::span<const std::uint8_t> mask,
                                              const CancelToken& cancel) {
  Impl& self = *impl_;
  TAILOR_CHECK(self.check(tokens));
  if (tokens.size() > static_cast<std::size_t>(max_context())) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("the text has {} tokens; the model reads {}", tokens.size(), max_context()), ""};
  }
  if (self.torch) return self.torch->losses(tokens, mask, cancel);
  TAILOR_CHECK(self.prepare(static_cast<int>(tokens.size())));
  std::vector<double> out;
  std::size_t first = 1;  // learnt tokens from here on
  while (first < tokens.size() && mask[first] == 0) ++first;
  if (first >= tokens.size()) return out;
  TAILOR_CHECK(self.hold(tokens.first(first - 1)));
  std::size_t last = tokens.size() - 1;
  while (mask[last] == 0) --last;
  const auto vocabulary = static_cast<std::size_t>(self.model->vocabulary());
  for (std::size_t at = first - 1; at < last; at += kLossSlice) {
    if (cancel.cancelled()) return Error{ErrorCode::kCancelled, "scoring was interrupted", ""};
    const std::size_t n = std::min(kLossSlice, last - at);
    TAILOR_CHECK(self.decode(tokens.subspan(at, n), true));
    for (std::size_t i = 0; i < n; ++i) {
      if (mask[at + i + 1] == 0) continue;
      const float* logits = llama_get_logits_ith(self.context.get(), static_cast<int>(i));
      out.push_back(log_sum_exp({logits, vocabulary}) - static_cast<double>(logits[tokens[at + i + 1]]));
    }
  }
  return out;
}

}  // namespace tailor
