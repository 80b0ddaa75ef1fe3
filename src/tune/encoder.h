#pragma once
/// An encoder of BERT's kind (Devlin et al., arXiv:1810.04805; RoBERTa, arXiv:1907.11692; DistilBERT, arXiv:1910.01108;
/// all the GGUF architecture "bert") or ModernBERT (Warner et al., arXiv:2412.13663; "modern-bert"), one class for
/// every method that trains it: which tensors are trained and where low-rank adapters sit are options, the forward pass
/// is one.

#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/modern_bert.h"
#include "core/rng.h"
#include "core/token_file.h"
#include "tune/adapter_start.h"
#include "tune/encoder_functions.h"
#include "tune/parameters.h"
#include "tune/settings.h"
#include "tune/slot_bindings.h"
#include "tune/trainable_model.h"
#include "tune/weights.h"

namespace tailor::tune {

struct EncoderConfig {
  std::int64_t layers = 0, width = 0, heads = 0, feed_forward = 0, context = 0, vocabulary = 0;
  float eps = 1e-12f;
  std::string model_type = "bert";  // of config.json: "distilbert", "roberta", …; names modules and what is trained
  bool trains_types = true;         // DistilBERT has no token types: where a file has a row of zeros, it stays
  std::int64_t token_types = 1;     // rows of that table; a second text has type 1 where there are two
  /// Not empty: ModernBERT's layers. Rotary positions instead of a table, windows of attention, one matrix of queries,
  /// keys and values, a norm before each part and one at the end (none before the first attention: the embeddings'
  /// stands there), a gated feed-forward, no biases, no token types.
  std::optional<ModernBertLayers> modern;
  /// Throws Exception{kCorruptData} where a number is missing or makes no sense.
  static EncoderConfig read(const BaseWeights& weights);
};

/// Bottleneck adapters in every layer: AdapterPlace says where.
struct EncoderAdapters {
  AdapterPlace place = AdapterPlace::kPfeiffer;
  AdapterSettings settings;
};

struct EncoderOptions {
  std::function<bool(std::string_view tensor)> trained;  // by GGUF name; empty: nothing
  std::vector<std::string> lora_targets;                 // "blk.0.attn_q", …, in order; empty: no adapters
  LoraSettings lora;
  std::optional<AdapterStart> lora_start;  // first values of all targets
  bool ia3 = false;                        // learnt scales of keys, values and inner features
  std::optional<EncoderAdapters> adapter;  // bottlenecks
  double hidden_dropout = 0;
  at::Device device = at::kCPU;
  Dtype dtype = Dtype::kF32;   // of the layers' frozen matrices
  bool checkpointing = false;  // between layers only their inputs are kept for the backward pass (checkpointed.h)
};

/// Whether Encoder trains models of this GGUF architecture.
bool is_encoder_architecture(std::string_view architecture);
/// Modules of one layer that can carry an adapter, by GGUF name, in the order in which they compute.
const std::vector<std::string>& encoder_linear_modules(std::string_view model_type = "bert");
/// What of an encoder of so many layers carries a low-rank adapter ("blk.0.attn_q", …, in the order in which they
/// compute). Names are "all-linear", GGUF names ("attn_q"), the model_type's Hugging Face names ("query", "dense",
/// "intermediate.dense"; DistilBERT: "q_lin", "lin1", …; ModernBERT: "Wqkv", "mlp.Wo", …), matched at the end of a
/// module's path, or regular expressions that a module's whole path matches ("encoder\.layer\.[01]\..*query"), as PEFT
/// has both; the path is that of the bare model, or of a model with a head ("bert.encoder.layer.0…"). What matches
/// nothing and an empty list throw Exception{kInvalidArgument} naming what is known.
std::vector<std::string> resolve_lora_targets(const std::vector<std::string>& names, std::string_view model_type,
                                              std::int64_t layers);

/// Holds only the token rows that the token file uses. Threads: one caller at a time.
class Encoder {
 public:
  /// Loads the weights and adds what is trained to `parameters`; call bind() after parameters.flatten(). The token file
  /// must outlive the encoder. A row longer than the model's context throws Exception{kInvalidArgument} naming the row.
  Encoder(const BaseWeights& weights, const TokenFile& file, EncoderOptions options, ParameterSet& parameters,
          Rng& rng);
  void bind(const ParameterSet& parameters);

  const EncoderConfig& config() const { return config_; }
  bool trains_embeddings() const { return embedding_.tokens.trained(); }
  bool has_bottlenecks() const { return options_.adapter.has_value(); }
  std::string_view adapter_place() const;  // as core/bottleneck_file.h names it
  PackedRows pack(RowSpan rows) const;
  /// [T, width]. `seed` makes the dropout masks; 0: no dropout. Rows are borrowed until backward has run.
  at::Tensor forward(const PackedRows& rows, std::uint64_t seed) const {
    return finished(through(embedded(rows, seed), 0, config_.layers, rows, seed));
  }
  /// The parts of it: what the layers read, layers [first, last) on it, and the norm after the last (ModernBERT's).
  at::Tensor embedded(const PackedRows& rows, std::uint64_t seed) const;
  at::Tensor through(at::Tensor x, std::int64_t first, std::int64_t last, const PackedRows& rows,
                     std::uint64_t seed) const;
  at::Tensor finished(at::Tensor x) const;

  struct Named {
    std::string name;  // GGUF
    at::Tensor value;  // f32; owned or a view of the parameters
  };
  /// Every tensor of the encoder as trained, whole (with unused token rows multiplied by `unused_decay`), adapters
  /// merged in, frozen matrices as they were kept. Calls back one tensor at a time; with `changed_only`, only those
  /// that differ from the base.
  void visit_merged(const BaseWeights& weights, const ParameterSet& parameters, double unused_decay, bool changed_only,
                    const std::function<void(const Named&)>& visit) const;

  /// What low-rank training learnt of one module; its weight is then W + scale B A, with magnitudes its rows rescaled.
  struct Adapter {
    std::string module;    // "blk.0.attn_q"
    at::Tensor a, b;       // [r, in], [out, r]; with PiSSA [2 r, in], [out, 2 r]: against the untouched weight
    at::Tensor magnitude;  // [out]; undefined: none
    double scale = 1;
  };
  std::vector<Adapter> adapters(const ParameterSet& parameters) const;

  /// Tensors of the bottleneck adapters, by name ("blk.0.adapter_ffn.down.weight").
  std::vector<Named> bottlenecks(const ParameterSet& parameters) const;
  nlohmann::ordered_json describe(const BaseWeights& weights) const;  // for TrainableModel::describe()

 private:
  struct Layer {
    LinearSpec qkv, attn_output, ffn_up, ffn_down;
    NormSpec attn_norm, ffn_norm;  // after these parts, ModernBERT's before them
    Slot ffn_up_bias;
    AttentionSpec view;
    Slot keys_values_scale, inner_scale;  // IA3; undefined values: none
    std::optional<BottleneckSpec> after_attention, ffn_adapter;
    bool trains() const;  // something of it
  };
  void read_rows();  // of the token file: ids in use, the longest row
  void fill_tables(const BaseWeights& weights, ParameterSet& parameters);
  void fill_bert_layer(Layer& layer, int number, const BaseWeights& weights, ParameterSet& parameters, Rng& rng);
  void fill_modern_layer(Layer& layer, int number, const BaseWeights& weights, ParameterSet& parameters, Rng& rng);
  void add_method(Layer& layer, int number, ParameterSet& parameters, Rng& rng);
  void fill(Slot& slot, std::vector<std::string> names, std::vector<std::int64_t> shape, const BaseWeights& weights,
            ParameterSet& parameters, bool decay);
  void add_lora(LinearSpec& linear, int layer, const std::vector<std::string>& modules,
                const std::vector<std::int64_t>& widths, std::int64_t in, ParameterSet& parameters, Rng& rng);
  void add_scale(Slot& slot, std::vector<std::string> names, std::int64_t width, ParameterSet& parameters);
  void fill_bottleneck(std::optional<BottleneckSpec>& spec, const std::string& name, ParameterSet& parameters,
                       Rng& rng);
  std::pair<at::Tensor, bool> ia3_of(const std::string& name, const ParameterSet& parameters) const;
  bool trained(std::string_view tensor) const;
  /// Whether the tensor is kept rounded to bf16.
  bool rounded(std::string_view tensor, std::size_t dimensions) const;
  at::Tensor bert_layer(const Layer& layer, std::int64_t number, at::Tensor x, const PackedRows& rows,
                        std::uint64_t seed) const;
  at::Tensor modern_layer(const Layer& layer, std::int64_t number, at::Tensor x, const PackedRows& rows,
                          std::uint64_t seed) const;

  EncoderConfig config_;
  EncoderOptions options_;
  const TokenFile& file_;
  std::vector<std::int64_t> used_ids_;  // sorted; row i of the compact table is used_ids_[i]
  std::vector<std::int32_t> compact_;   // id -> row of the compact table, -1 where unused
  std::int64_t longest_row_ = 0;
  EmbeddingSpec embedding_;
  NormSpec embedding_norm_, final_norm_;
  at::Tensor global_turns_, local_turns_;  // AttentionSpec::rotary, [longest row, head width]
  std::vector<Layer> layers_;
  SlotBindings bindings_;
  std::map<std::string, std::pair<at::Tensor, at::Tensor>> first_;  // PiSSA: A and B at the start, by module
  std::vector<std::string> bottleneck_names_;
};

}  // namespace tailor::tune
