"""Chat formats of the families, as Jinja templates: for folders that bring none."""

from collections.abc import Mapping


Message = Mapping[str, str]
"""{"role": "system" | "user" | "assistant", "content": text}."""

_PLAIN = "{%- for message in messages %}{{- message['content'] }}{%- endfor %}"
_CHATML = (
    "{%- if messages[0]['role'] != 'system' %}"
    "{{- '<|im_start|>system\\n@SYSTEM@<|im_end|>\\n' }}"
    "{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)

TEMPLATES: dict[str, str] = {
    # The prompt as it is: base models.
    "plain": _PLAIN,
    # The same behind the tokenizer's own beginning, as Dream's base models are evaluated [code].
    "plain_bos": (
        "{%- if not bos_token %}"
        "{{- raise_exception('the tokenizer names no token that begins a text') }}"
        "{%- endif %}"
        "{{- bos_token }}"
    )
    + _PLAIN,
    # LLaDA-8B and LLaDA-1.5 [published config]: Llama-3 headers.
    "llama3": (
        "{{- '<|startoftext|>' }}"
        "{%- for message in messages %}"
        "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
        "{{- message['content'] | trim + '<|eot_id|>' }}"
        "{%- endfor %}"
        "{%- if add_generation_prompt %}"
        "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
        "{%- endif %}"
    ),
    # Dream, Dream-Coder, DiffuCoder: ChatML with a system turn when none is given.
    "chatml": _CHATML.replace("@SYSTEM@", "You are a helpful assistant."),
    # Fast-dLLM v2 and WeDLM: Qwen2.5's own system turn [base model].
    "chatml_qwen": _CHATML.replace(
        "@SYSTEM@", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    ),
    # SmolLM2: the turn its own template writes.
    "smollm2": _CHATML.replace(
        "@SYSTEM@", "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    ),
    # SDAR, TraDo, TDAR: Qwen3, no default system turn; enable_thinking=false closes the thought.
    "qwen3": (
        "{%- for message in messages %}"
        "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
        "{%- endfor %}"
        "{%- if add_generation_prompt %}"
        "{{- '<|im_start|>assistant\\n' }}"
        "{%- if enable_thinking is defined and enable_thinking is false %}"
        "{{- '<think>\\n\\n</think>\\n\\n' }}"
        "{%- endif %}"
        "{%- endif %}"
    ),
    # LLaDA-MoE, LLaDA2 (inclusionAI/dInfer): upper-case roles, thinking off unless asked for.
    "role": (
        "{%- if messages[0]['role'] != 'system' %}"
        "{{- '<role>SYSTEM</role>detailed thinking ' }}"
        "{{- 'on' if enable_thinking is defined and enable_thinking else 'off' }}"
        "{{- '<|role_end|>' }}"
        "{%- endif %}"
        "{%- for message in messages %}"
        "{%- set role = 'HUMAN' if message['role'] == 'user' else message['role'] | upper %}"
        "{{- '<role>' + role + '</role>' + message['content'] + '<|role_end|>' }}"
        "{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<role>ASSISTANT</role>' }}{%- endif %}"
    ),
}
