#pragma once
/// A llama.cpp context, its adapter and its batches behind RAII and Result. Internal to this module.

#include <llama.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "infer/errand_mutex.h"
#include "model/adapter_check.h"
#include "model/llama_runtime.h"
#include "model/tokenizer.h"

namespace tailor {

struct LlamaContextFree {
  void operator()(llama_context* context) const { llama_free(context); }
};
using LlamaContextPtr = std::unique_ptr<llama_context, LlamaContextFree>;

/// A metadata value as text; empty: absent.
std::string model_metadata(const llama_model* model, const std::string& key);

/// A model with at most one LoRA adapter, shared by several contexts. The adapter lives as long as the model.
class LoadedModel {
 public:
  /// `adapter` (a GGUF adapter) may be empty.
  static Result<std::shared_ptr<const LoadedModel>> load(const std::filesystem::path& gguf,
                                                         const std::filesystem::path& adapter);
  LoadedModel() = default;
  LoadedModel(const LoadedModel&) = delete;
  LoadedModel& operator=(const LoadedModel&) = delete;
  ~LoadedModel();

  llama_model* get() const { return model_.get(); }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  int vocabulary() const { return llama_vocab_n_tokens(llama_model_get_vocab(model_.get())); }
  /// No causal attention: texts in, vectors out. llama.cpp has no public word for it.
  bool is_encoder() const;
  /// An error for all but decoder-only transformers; `what` is what only those can do ("text can be generated").
  Status require_decoder(std::string_view what) const;
  std::string chat_template() const;             // empty: none
  std::vector<std::int32_t> end_tokens() const;  // with which the model ends an answer
  /// Models with two sets of rotary factors (longrope, such as Phi-3's long ones): the longest text that turns by the
  /// first; 0: there is one set. llama.cpp chooses by the size of a context, transformers and tailor-tune by the text.
  int short_context() const { return short_context_; }
  /// A metadata value as text; empty: absent.
  std::string metadata(const std::string& key) const;
  const std::string& name() const { return name_; }    // file name, for messages
  bool own_products() const { return own_products_; }  // most of its weights are multiplied by infer/packed_matrix.h
  /// Computes one token, so that weights are packed before somebody waits for an answer.
  Status touch_weights() const;
  const std::filesystem::path& file() const { return file_; }
  /// Bytes of keys and values of one token.
  std::uint64_t cell_bytes(bool f32) const { return cell_bytes_ * (f32 ? 2 : 1); }
  /// A GGUF adapter, checked (model/adapter_check.h) so that a hostile one is an Error and not an abort. It ends with
  /// the model, or by drop_adapter(). Takes adapter_list().
  Result<llama_adapter_lora*> load_adapter(const std::filesystem::path& adapter) const;
  /// Of an adapter that no context has. Waits for nobody: who holds adapter_list() drops it when he lets go.
  void drop_adapter(llama_adapter_lora* adapter) const;
  /// llama.cpp lists a model's adapters without a lock of its own. Held while one is added or dropped, and by those who
  /// read the list: make_context(), which takes it itself, and the first step after a context got another adapter.
  ErrandMutex& adapter_list() const { return adapter_list_; }
  /// A new context with the adapter applied.
  Result<LlamaContextPtr> make_context(const llama_context_params& params) const;

 private:
  LlamaModelPtr model_;
  std::optional<Tokenizer> tokenizer_;  // reads model_
  AdapterBase adapter_base_;
  std::uint64_t cell_bytes_ = 0;  // f16
  llama_adapter_lora* adapter_ = nullptr;
  std::string name_;
  std::filesystem::path file_;
  mutable ErrandMutex adapter_list_;
  int short_context_ = 0;
  bool own_products_ = false;
};

/// Sequences of one token: half open [first, last). llama.cpp wants nested sets; ranges of a tree's leaves are.
struct SequenceRange {
  std::int32_t first = 0;
  std::int32_t last = 1;
};

/// Tokens of one llama_decode call.
class DecodeBatch {
 public:
  /// Returns the token's index in the batch, which is what llama_get_logits_ith() wants.
  int add(std::int32_t token, std::int32_t position, SequenceRange sequences, bool output);
  void clear();
  int size() const { return static_cast<int>(tokens_.size()); }
  int outputs() const { return outputs_; }
  bool empty() const { return tokens_.empty(); }

  /// Decodes. llama.cpp accepts a position twice without a word and then scores wrongly, so positions are checked
  /// first: in every sequence they must go on by one from what the context holds.
  Status decode(llama_context* context, const std::string& model_name);

 private:
  std::vector<std::int32_t> tokens_, positions_, sequence_counts_;
  std::vector<SequenceRange> ranges_;
  std::vector<std::int8_t> output_;
  std::vector<std::int32_t> sequence_ids_;
  std::vector<std::int32_t*> sequence_pointers_;
  int outputs_ = 0;
};

constexpr int kMaxSequences = 256;  // llama.cpp's LLAMA_MAX_SEQ

}  // namespace tailor
