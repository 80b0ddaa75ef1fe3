#pragma once
/// Values of a GGUF file on which llama.cpp would abort the process instead of returning an error: sizes of zero, more
/// layers than it has room for, a vocabulary with repeated tokens, tables of the wrong length. Checked before it loads.

#include "core/result.h"
#include "model/gguf_file.h"

namespace tailor {

Status check_llama_metadata(const GgufFile& file);

}  // namespace tailor
