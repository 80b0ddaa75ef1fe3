#pragma once
/// A conversation in a model's chat template, with the texts of its turns kept apart from the template's own.

#include <span>
#include <string>

#include "infer/chat_template.h"
#include "prompt/prompt_text.h"

namespace tailor {

/// Pieces: the template's text before turn 0, turn 0, the template's text before turn 1, …, the template's text at the
/// end: 2 n + 1 of them, empty ones included. Templates that strip the blanks around a turn (Llama 3) do so here too.
/// Errors: those of apply_chat_template(); a template that leaves a turn out or moves it (kUnavailable).
Result<PromptText> render_chat(const std::string& chat_template, std::span<const ChatMessage> messages,
                               bool answer_follows);

}  // namespace tailor
