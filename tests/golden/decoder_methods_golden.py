"""References of the decoder's tuning methods on a tiny LlamaForCausalLM: PEFT where it has the method, else plain PyTorch.

Run:    python tests/golden/decoder_methods_golden.py
Writes: tests/golden/data/decoder_methods.json         of each case the job's method and settings, losses, gradient norms
                                                       and the probabilities of the labels of the test rows
        tests/golden/data/decoder_methods.safetensors  what is trained after the last step, "case/tensor"
Needs:  torch, transformers, peft, safetensors, numpy.

Model and prompts are those of decoder_golden.py: nine rows to learn, three to answer, label = row number mod 3. Tensors
have the names of the files that tailor-tune writes.
"""

import math
import tempfile

import torch
from peft import IA3Config, LoraConfig, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer

from counter_rng import Rng
from decoder_golden import HEAD_DIM, HIDDEN, KV_HEADS, LAYERS, MODULES, batch_loss, rows, set_lora, tiny_model, to_gguf
from encoder_golden import batches
from encoder_methods_golden import Bottleneck, only
from tuning_steps import adapter_files, parameter_groups, store, train

SEED, STEPS, BATCH, TRAINED = 5, 10, 4, 9
ANSWERS = [[5, 2], [5, 6, 2], [90, 2]]
START = [7, 90, 41, 5]  # the real tokens whose values the virtual ones begin with
COMMON = dict(weight_decay=0.05, batch_size=BATCH, max_steps=STEPS, warmup_ratio=0, schedule="constant")
ADAPTER = dict(r=2, alpha=4, target_modules="all-linear")
DISTILL = dict(temperature=3, alpha=0.6)
PROMPT = dict(tokens=len(START), start=START)
SOFT_PROMPT_STREAM = 9000  # src/tune/soft_prompt.cpp
BOTTLENECK_STREAM = 7900  # src/tune/decoder_classifier.cpp
VIRTUAL = dict(task_type="CAUSAL_LM", num_virtual_tokens=len(START))


def lora(**options):
    model = get_peft_model(tiny_model(False), LoraConfig(r=ADAPTER["r"], lora_alpha=ADAPTER["alpha"], lora_dropout=0.0,
                                                         task_type="CAUSAL_LM", **options,
                                                         target_modules=[p.split(".")[1] for _, p, _ in MODULES]))
    if "init_lora_weights" not in options:
        set_lora(model, SEED, LAYERS)
    return model


GGUF = {path: (name, heads) for name, path, heads in MODULES}
GGUF |= {"input_layernorm": ("attn_norm", 0), "post_attention_layernorm": ("ffn_norm", 0)}


def gguf_tensor(name, value):
    """A weight of LlamaForCausalLM under the name and in the order of a GGUF file."""
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
             "lm_head.weight": "output.weight"}
    if name in whole:
        return whole[name], value
    _, _, layer, rest = name.split(".", 3)
    gguf, heads = GGUF[rest.removesuffix(".weight")]
    return f"blk.{layer}.{gguf}.weight", torch.tensor(to_gguf(value.detach().numpy(), heads).copy())


def trained_state(model):
    return dict(gguf_tensor(n, p) for n, p in model.named_parameters() if p.requires_grad)


def part_of_all(model):
    """Of full tuning: the words and the second block, to keep the file small."""
    return {n: v for n, v in trained_state(model).items() if n.startswith(("blk.1.", "token_embd", "output_norm"))}


def merged(model, changed):
    """PEFT's tensors, and the weights they make."""
    tensors = adapter_files(model)[1]
    state = model.merge_and_unload().state_dict()
    return {**tensors, **dict(gguf_tensor(n, v) for n, v in state.items() if any(c in n for c in changed))}


def pissa_state(start):
    """As an update of the untouched weights: [A; A0] and [B, -B0]. Singular vectors have no sign of their own: ours have
    their largest number above zero at the start."""

    def state(model):
        tensors = adapter_files(model, start)[1]
        for name in [n for n in tensors if "lora_A" in n]:
            a, b = tensors[name], tensors[name.replace("lora_A", "lora_B")]
            first = a[len(a) // 2:]
            signs = torch.sign(first.gather(1, first.abs().argmax(dim=1, keepdim=True))).flatten().repeat(2)
            a.mul_(signs[:, None])
            b.mul_(signs)
        return tensors

    return state


class Adapted(torch.nn.Module):
    """A part of a block whose output goes through a bottleneck: beside it with `parallel`, else behind it."""

    def __init__(self, part, adapter, parallel=False):
        super().__init__()
        self.part, self.adapter, self.parallel = part, adapter, parallel

    def forward(self, x):
        o = self.part(x)
        return o + self.adapter(x if self.parallel else o)


def bottlenecks(place, size, scale):
    model = only(tiny_model(False), lambda name: place == "houlsby" and "norm" in name)
    rng = Rng(SEED, BOTTLENECK_STREAM)
    make = lambda: Bottleneck(HIDDEN, size, torch.nn.functional.gelu if place == "houlsby" else torch.relu, scale, rng)
    for layer in model.model.layers:
        if place == "houlsby":
            layer.self_attn.o_proj = Adapted(layer.self_attn.o_proj, make())
        layer.mlp = Adapted(layer.mlp, make(), place == "parallel")
    return model


def bottleneck_state(model):
    found = {}
    for name, p in model.named_parameters():
        if p.requires_grad and ".adapter." in name:
            place = "adapter_attn" if "self_attn" in name else "adapter_ffn"
            found[f"blk.{name.split('.')[2]}.{place}.{name.split('.adapter.')[1]}"] = p
        elif p.requires_grad:
            found.update([gguf_tensor(name, p)])
    return found


def lora_plus(model, settings):
    return create_loraplus_optimizer(model, torch.optim.AdamW, lr=settings["learning_rate"], loraplus_lr_ratio=16,
                                     loraplus_weight_decay=settings["weight_decay"])


def uniform(tensor, bound, rng):
    tensor.data.copy_(torch.tensor(((2 * rng.uniform(tensor.numel()) - 1) * bound).reshape(tensor.shape)))


def prompt(config):
    """PEFT's network; embeddings start as the real tokens', the rest with the draws of SoftPrompt, in its order."""
    base = tiny_model(False)
    start = base.model.embed_tokens.weight.detach()[START].clone()
    model = get_peft_model(base, config)
    encoder = model.prompt_encoder["default"]
    encoder.embedding.weight.data.copy_(start)
    rng = Rng(SEED, SOFT_PROMPT_STREAM)
    if hasattr(encoder, "lstm_head"):
        for name, p in encoder.lstm_head.named_parameters():  # weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, …_reverse
            uniform(p, 1 / math.sqrt(encoder.lstm_head.hidden_size), rng)
    for part in getattr(encoder, "mlp_head", []):
        if isinstance(part, torch.nn.Linear):
            uniform(part.weight, 1 / math.sqrt(part.in_features), rng)
            uniform(part.bias, 1 / math.sqrt(part.in_features), rng)
    return model


def prompt_state(model):
    """In PEFT's file and in ours."""
    tensors = adapter_files(model)[1]
    return {**tensors, "embeddings": tensors["prompt_embeddings"]}


def prefix():
    """Keys and values begin as those of the real tokens. PEFT puts them into the cache as they are: keys are not turned
    again, and the rows' own tokens stand at the positions after them."""
    base = tiny_model(False)
    with torch.no_grad():
        cache = base(input_ids=torch.tensor([START]), use_cache=True).past_key_values
    parts = [t[0].transpose(0, 1).reshape(len(START), -1) for layer in cache.layers for t in (layer.keys, layer.values)]
    model = get_peft_model(base, PrefixTuningConfig(**VIRTUAL, prefix_projection=False))
    model.prompt_encoder["default"].embedding.weight.data.copy_(torch.cat(parts, dim=1))
    return model


def prefix_state(model):
    return keys_and_values(model.prompt_encoder["default"].embedding.weight.detach())


def keys_and_values(prefix):
    """Keys in the order of GGUF's rotary pairs, which is that of the file."""
    width = KV_HEADS * HEAD_DIM
    parts = prefix.split(width, dim=1)
    found = {}
    for layer in range(LAYERS):
        found[f"blk.{layer}.keys"] = torch.tensor(to_gguf(parts[2 * layer].T.numpy(), KV_HEADS).T.copy())
        found[f"blk.{layer}.values"] = parts[2 * layer + 1]
    return found


class Residual(torch.nn.Module):
    """Residual prompt tuning: E + LayerNorm(MLP(E)), as the authors' ResMLP; our gain starts at 0."""

    def __init__(self, embedding, hidden):
        super().__init__()
        width = embedding.weight.shape[1]
        self.embedding = embedding
        self.down, self.up = torch.nn.Linear(width, hidden), torch.nn.Linear(hidden, width)
        self.norm = torch.nn.LayerNorm(width)
        torch.nn.init.zeros_(self.norm.weight)
        rng = Rng(SEED, SOFT_PROMPT_STREAM)
        for part in (self.down, self.up):
            uniform(part.weight, 1 / math.sqrt(part.in_features), rng)
            uniform(part.bias, 1 / math.sqrt(part.in_features), rng)

    def forward(self, indices):
        e = self.embedding(indices)
        return e + self.norm(self.up(torch.relu(self.down(e))))


def residual_prompt(hidden):
    model = prompt(PromptTuningConfig(**VIRTUAL))
    encoder = model.prompt_encoder["default"]
    model.prompt_encoder["default"] = Residual(encoder.embedding, hidden)
    return model


def residual_state(model):
    with torch.no_grad():
        made = model.prompt_encoder["default"](torch.arange(len(START)))
    return {"prompt_embeddings": made, "embeddings": made.clone()}


def projected_prefix(hidden):
    """PEFT's network for a prefix; ours adds to the keys and values of the real tokens, and its second layer starts at 0."""
    start = prefix().prompt_encoder["default"].embedding.weight.detach().clone()
    model = get_peft_model(tiny_model(False), PrefixTuningConfig(**VIRTUAL, prefix_projection=True, encoder_hidden_size=hidden))
    encoder = model.prompt_encoder["default"]
    rng = Rng(SEED, SOFT_PROMPT_STREAM)
    encoder.embedding.weight.data.copy_(torch.tensor(rng.normal(encoder.embedding.weight.numel()).reshape(encoder.embedding.weight.shape)))
    first, second = encoder.transform[0], encoder.transform[2]
    uniform(first.weight, 1 / math.sqrt(first.in_features), rng)
    uniform(first.bias, 1 / math.sqrt(first.in_features), rng)
    torch.nn.init.zeros_(second.weight)
    torch.nn.init.zeros_(second.bias)
    network = encoder.forward
    encoder.forward = lambda indices: network(indices) + start
    return model


def projected_state(model):
    encoder = model.prompt_encoder["default"]
    with torch.no_grad():
        made = encoder(torch.arange(len(START)))
    return keys_and_values(made)


def adamw(decays, scale=lambda name: 1.0):
    return lambda model, settings: torch.optim.AdamW(parameter_groups(model, settings, decays, scale),
                                                     eps=settings.get("epsilon", 1e-8))


def cases():
    """Name -> method, job's settings, model, optimiser, what is trained of it at the end. Decay is ours: on matrices, not
    on biases and a prefix."""
    matrices, nothing = adamw(lambda n, p: p.ndim == 2 and "ia3_l" not in n), adamw(lambda n, p: False)
    lora_state = lambda model: adapter_files(model)[1]
    yield "rslora", "rslora", dict(learning_rate=5e-3, lora=ADAPTER), lora(use_rslora=True), matrices, lora_state
    yield ("dora", "dora", dict(learning_rate=5e-3, lora=ADAPTER), lora(use_dora=True), matrices,
           lambda m: merged(m, [p for _, p, _ in MODULES]))
    with tempfile.TemporaryDirectory() as start:
        model = lora(init_lora_weights="pissa")
        model.save_pretrained(start)
        yield "pissa", "pissa", dict(learning_rate=1e-3, lora=ADAPTER), model, matrices, pissa_state(start)
    # Many of the words' gradients are next to nothing: with a small epsilon their first step is the sign of a rounding.
    yield "full", "full", dict(learning_rate=1e-3, epsilon=1e-4), only(tiny_model(False), lambda n: True), matrices, part_of_all
    yield "full-tied", "full", dict(learning_rate=1e-3, epsilon=1e-4), only(tiny_model(True), lambda n: True), matrices, part_of_all
    yield ("upper-layers", "upper-layers", dict(learning_rate=1e-3, upper_layers=1),
           only(tiny_model(False), lambda n: ".layers.1." in n), matrices, trained_state)
    yield ("layernorm", "layernorm", dict(learning_rate=5e-3), only(tiny_model(False), lambda n: "norm" in n), matrices,
           trained_state)
    ia3 = IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"])
    yield ("ia3", "ia3", dict(learning_rate=1e-2), get_peft_model(tiny_model(False), ia3), matrices,
           lambda m: merged(m, ia3.target_modules))
    for place, scale in (("houlsby", 1), ("pfeiffer", 1), ("parallel", 4)):
        settings = dict(learning_rate=3e-3, adapter=dict(size=8))  # the scale is the method's own
        yield f"adapter-{place}", f"adapter-{place}", settings, bottlenecks(place, 8, scale), matrices, bottleneck_state
    yield "lora-plus", "lora-plus", dict(learning_rate=5e-4, lora=ADAPTER), lora(), lora_plus, lora_state
    whole = ["embed_tokens", "lm_head"]
    yield ("lora-whole", "lora", dict(learning_rate=1e-3, epsilon=1e-4, lora=ADAPTER | dict(modules_to_save=whole)),
           lora(modules_to_save=whole), matrices, lambda m: merged(m, whole))
    yield "distill", "distill", dict(learning_rate=5e-3, lora=ADAPTER, distill=DISTILL), lora(), matrices, lora_state
    yield ("prompt-tuning", "prompt-tuning", dict(learning_rate=1e-2, soft_prompt=PROMPT),
           prompt(PromptTuningConfig(**VIRTUAL)), matrices, prompt_state)
    for kind, hidden in (("mlp", 24), ("lstm", 12)):
        settings = dict(learning_rate=5e-3, soft_prompt=PROMPT | dict(encoder=kind, hidden=hidden))
        config = PromptEncoderConfig(**VIRTUAL, encoder_reparameterization_type=kind.upper(), encoder_hidden_size=hidden,
                                     encoder_num_layers=2, encoder_dropout=0.0)
        yield f"p-tuning-{kind}", "p-tuning", settings, prompt(config), matrices, prompt_state
    yield "prefix-tuning", "prefix-tuning", dict(learning_rate=1e-2, soft_prompt=PROMPT), prefix(), nothing, prefix_state
    # A tenth of the rate for the networks; decay on their matrices and on the embeddings.
    network = adamw(lambda n, p: p.ndim == 2, lambda n: 1.0 if "embedding" in n or ".norm." in n else 0.1)
    made = PROMPT | dict(reparameterise=True, hidden=24)
    yield ("prompt-tuning-residual", "prompt-tuning", dict(learning_rate=1e-2, soft_prompt=made), residual_prompt(24),
           network, residual_state)
    yield ("prefix-tuning-mlp", "prefix-tuning", dict(learning_rate=1e-2, soft_prompt=made), projected_prefix(24), network,
           projected_state)


def label_scores(model, tokens):
    """Log-probabilities of the whole answers, with gradients."""
    scores = []
    for answer in ANSWERS:
        logits = model(input_ids=torch.tensor([tokens + answer]),
                       attention_mask=torch.ones(1, len(tokens + answer))).logits[0]
        at = torch.log_softmax(logits[-len(answer) - 1:-1], dim=-1)
        scores.append(at[range(len(answer)), answer].sum())
    return torch.stack(scores)


TEACHER = [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.05, 0.15, 0.8]]  # of row r: TEACHER[r mod 3]; row 4 has none, row 5 no label


def distillation_loss(model, prompts, batch, temperature, alpha):
    """Hinton et al., over the labels' scores."""
    total = 0
    for i in batch:
        scores, teacher = label_scores(model, prompts[i]), torch.tensor(TEACHER[i % 3])
        soft = temperature ** 2 * torch.nn.functional.kl_div(torch.log_softmax(scores / temperature, dim=0),
                                                             torch.softmax(teacher.log() / temperature, dim=0),
                                                             reduction="sum")
        hard = torch.nn.functional.cross_entropy(scores[None], torch.tensor([i % 3]))
        weight = 0.0 if i == 4 else 1.0 if i == 5 else alpha
        total = total + weight * soft + (1 - weight) * hard
    return total / len(batch)


def label_probabilities(model, tokens):
    """softmax over the log-probabilities of the whole answers."""
    scores = []
    for answer in ANSWERS:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokens + answer]),
                           attention_mask=torch.ones(1, len(tokens + answer))).logits[0]
        at = torch.log_softmax(logits[-len(answer) - 1:-1].double(), dim=-1)  # virtual tokens may stand in front
        scores.append(at[range(len(answer)), answer].sum())
    return torch.softmax(torch.stack(scores), dim=0).tolist()


def main():
    prompts, results, tensors = [r["tokens"] for r in rows()], {}, {}
    order = batches(TRAINED, SEED, BATCH, STEPS)
    answered = [{"tokens": p + ANSWERS[i % 3], "learnt": len(ANSWERS[i % 3])} for i, p in enumerate(prompts)]
    for name, method, own, model, optimiser, state in cases():
        settings = COMMON | own
        model.train()
        loss_of = lambda batch: batch_loss(model, [answered[i] for i in batch])
        if method == "distill":
            loss_of = lambda batch: distillation_loss(model, prompts, batch, **DISTILL)
        losses, norms = train(model, optimiser(model, settings), order, loss_of)
        model.eval()
        config = None
        if hasattr(model, "peft_config") and method != "prefix-tuning":  # whose keys have an order of their own
            config = adapter_files(model)[0]  # before it is merged
        if method == "pissa":  # against the untouched weights it has twice the rank
            config |= dict(r=2 * config["r"], lora_alpha=2 * config["lora_alpha"])
        tensors[name] = state(model)
        results[name] = {"method": method, "settings": settings, "losses": losses, "gradient_norms": norms,
                         "probabilities": [p for tokens in prompts[TRAINED:] for p in label_probabilities(model, tokens)]}
        if config is not None:
            results[name]["adapter_config"] = config
            if method == "p-tuning":  # tailor-tune saves the vectors as a prompt: they are all that answering needs
                config["peft_type"] = "PROMPT_TUNING"
    store("decoder_methods", results, tensors)


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    main()
