"""Every text of the interface, in both languages."""

from __future__ import annotations

from collections.abc import Mapping

from ..languages import Language

ENGLISH: Mapping[str, str] = {
    # The page
    "title": "FG-CLIP 2: try it",
    "heading": "Try it on your pictures",
    "other_language": "中文",
    "about": "{family} “{name}”, {patches}. Everything runs on this computer; nothing leaves it.",
    "patches": "{budget} patches a picture",
    "no_patches": "pictures of one size",
    "about_embedded": "This is the small checkpoint inside the package. It knows drawings of about 90 things, "
    "and is often wrong about anything else, photographs above all: the examples are what it can do. "
    "“fgclip2 app --model” loads another.",
    "examples": "Examples",
    "credits": "Example pictures: {names}. Licences are in the package’s manifest.json.",
    # Fields and buttons
    "picture": "Picture",
    "first_picture": "First picture",
    "second_picture": "Second picture",
    "opacity": "Opacity of the colours",
    "run": "Run",
    "download": "Maps as PNG and NPZ",
    # Search
    "tab_search": "Search",
    "help_search": "Find pictures by what is in them, by a picture, or by both.",
    "query": "What is in the picture",
    "query_picture": "Or a picture like it",
    "count": "Results",
    "order": "Order of the results",
    "order_none": "whole pictures",
    "order_phrases": "whole pictures and phrases (shows where)",
    "order_model": "the model’s ranking stage",
    "search": "Search",
    "no_hits": "Nothing was found.",
    "build": "Bring the index up to date",
    "building": "Pictures embedded",
    "index_ready": "{count} pictures in the index of “{folder}”.",
    "index_missing": "“{folder}” has no index yet. Build it with the button below; it can take a while for many "
    "pictures.",
    "index_absent": "“{folder}” has no index. Whoever runs the app can make it with “fgclip2 index”, and start "
    "it again.",
    "index_built": "New: {added}, changed: {updated}, removed: {removed}, as before: {unchanged}, unusable: "
    "{unusable}.",
    # Labels
    "tab_labels": "Labels",
    "help_labels": "Which of your labels fit a picture? They need no training.",
    "labels": "Labels, with commas between them",
    "text": "Text",
    "box": "Box",
    "probability": "Probability",
    "score": "Score",
    "share": "Share",
    "cosine": "Cosine",
    "probability_note": "Probabilities of a match, by the checkpoint’s calibration; each text is judged by itself.",
    "none_probable": "None of these is probable: each has less than 50%, by the checkpoint’s calibration.",
    "score_note": "Scores of the model. They order texts, and are no calibrated probabilities: there is no "
    "calibration of this checkpoint for these texts and this number of patches.",
    "share_note": "Shares of one whole: they say which phrase fits best, and not whether it fits.",
    # Boxes
    "tab_boxes": "Boxes",
    "help_boxes": "Choose the frame below the picture, and draw boxes with the mouse or a finger. Each gets the "
    "phrase that fits it best.",
    "boxes_picture": "Picture, to draw boxes on",
    "phrases": "Phrases, with commas between them",
    "label_boxes": "Label the boxes",
    "none_fits": "none of these (nearest: {text})",
    # Heat maps
    "tab_maps": "Heat maps",
    "help_maps": "Where in a picture does a phrase apply? All maps have one scale.",
    "draw_maps": "Draw the maps",
    "scale_maps": "Cosine of each place with the phrase: red fits most, blue least.",
    # Contrast
    "tab_contrast": "Two captions",
    "help_contrast": "Which of two captions fits a picture, and which parts make the difference?",
    "first_caption": "First caption",
    "second_caption": "Second caption",
    "compare": "Compare",
    "difference": "First minus second",
    "scale_difference": "Red: the first fits better here. Blue: the second. Green: no difference. A colour "
    "stands for as much as in the maps.",
    # Two pictures
    "tab_pair": "Two pictures",
    "help_pair": "Which of two pictures fits a text better, and where?",
    "caption": "Text",
    "better": "fits better",
    # What goes wrong
    "lacks": "{family} embeds whole pictures, so it can’t do this. Load a checkpoint of FG-CLIP or FG-CLIP 2 for it.",
    "no_picture": "Choose a picture first.",
    "unreadable_picture": "This picture can’t be read. It has to be a whole PNG, JPEG, WebP, GIF, BMP or TIFF "
    "file of at most {pixels:,} pixels.",
    "no_text": "Write a text first.",
    "no_query": "Write what to search for, or choose a picture.",
    "no_phrases": "Write one phrase at least.",
    "text_too_long": "A text may have at most {most:,} characters.",
    "too_many_phrases": "At most {most} phrases go at once; these are {count}.",
    "no_box": "Draw a box on the picture first.",
    "too_many_boxes": "At most {most} boxes go at once; these are {count}.",
    "unusable_box": "A box lies outside its picture or has no area: draw it again.",
    "no_index": "There is no index yet: build it first.",
    "locked_index": "The index is being written, maybe in another window. Try again in a moment.",
    "unusable_index": "The index does not fit this checkpoint, or is damaged: {reason}",
    "unusable": "This can’t be used: {reason}",
}

CHINESE: Mapping[str, str] = {
    # The page
    "title": "试用 FG-CLIP 2",
    "heading": "用你的图片试一试",
    "other_language": "English",
    "about": "{family}“{name}”，{patches}。一切都在这台电脑上运行，不会有任何内容离开它。",
    "patches": "每幅图 {budget} 个图块",
    "no_patches": "图片统一缩放为一种尺寸",
    "about_embedded": "这是软件包内置的小检查点。它认识约 90 种事物的图画，对其他内容常常出错，照片尤其如此；示例"
    "展示的是它做得到的事。用“fgclip2 app --model”可换成别的检查点。",
    "examples": "示例",
    "credits": "示例图片：{names}。许可证见软件包内的 manifest.json。",
    # Fields and buttons
    "picture": "图片",
    "first_picture": "第一幅图",
    "second_picture": "第二幅图",
    "opacity": "颜色的不透明度",
    "run": "运行",
    "download": "热力图文件（PNG 和 NPZ）",
    # Search
    "tab_search": "搜索",
    "help_search": "用文字描述、用一幅图片，或两者一起来找图。",
    "query": "图里有什么",
    "query_picture": "或一幅相似的图片",
    "count": "结果数",
    "order": "结果的排序",
    "order_none": "按整幅图",
    "order_phrases": "按整幅图和各条短语（标出位置）",
    "order_model": "用模型的排序阶段",
    "search": "搜索",
    "no_hits": "没有找到。",
    "build": "更新索引",
    "building": "已编码的图片",
    "index_ready": "“{folder}”的索引中有 {count} 幅图片。",
    "index_missing": "“{folder}”还没有索引。请用下面的按钮建立；图片多时需要一些时间。",
    "index_absent": "“{folder}”没有索引。运行本应用的人可以用“fgclip2 index”建立，再重新启动。",
    "index_built": "新增 {added}，更改 {updated}，移除 {removed}，未变 {unchanged}，不可用 {unusable}。",
    # Labels
    "tab_labels": "标签",
    "help_labels": "你给出的标签中哪些适合这幅图？无需训练。",
    "labels": "标签，用逗号分隔",
    "text": "文本",
    "box": "框",
    "probability": "概率",
    "score": "分数",
    "share": "份额",
    "cosine": "余弦",
    "probability_note": "按检查点的校准得到的匹配概率，每条文本单独判断。",
    "none_probable": "这些都不太可能：按检查点的校准，每条都低于 50%。",
    "score_note": "这是模型的分数，只用来排序，不是校准过的概率：这个检查点没有适用于这些文本和图块数的校准。",
    "share_note": "各条短语的份额之和为一：只说明哪条最合适，不说明它是否合适。",
    # Boxes
    "tab_boxes": "画框",
    "help_boxes": "点选图片下方的方框图标，用鼠标或手指画框；每个框会得到最合适的短语。",
    "boxes_picture": "在图片上画框",
    "phrases": "短语，用逗号分隔",
    "label_boxes": "给框加标签",
    "none_fits": "都不合适（最接近：{text}）",
    # Heat maps
    "tab_maps": "热力图",
    "help_maps": "一条短语说的是图中哪里？所有热力图用同一刻度。",
    "draw_maps": "绘制热力图",
    "scale_maps": "图中各处与短语的余弦：红色最合适，蓝色最不合适。",
    # Contrast
    "tab_contrast": "两条描述",
    "help_contrast": "两条描述中哪一条适合这幅图？差别来自图中哪里？",
    "first_caption": "第一条描述",
    "second_caption": "第二条描述",
    "compare": "比较",
    "difference": "第一条减第二条",
    "scale_difference": "红色：此处第一条更合适；蓝色：第二条更合适；绿色：没有差别。同样的颜色间隔代表与热力图中"
    "一样大的差。",
    # Two pictures
    "tab_pair": "两幅图",
    "help_pair": "两幅图中哪一幅更适合一段文字？在图中哪里？",
    "caption": "文字",
    "better": "更合适",
    # What goes wrong
    "lacks": "{family} 只编码整幅图片，做不到这一点。请为此加载 FG-CLIP 或 FG-CLIP 2 的检查点。",
    "no_picture": "请先选择一幅图片。",
    "unreadable_picture": "无法读取这幅图片。请使用完整的 PNG、JPEG、WebP、GIF、BMP 或 TIFF 文件，最多"
    " {pixels:,} 像素。",
    "no_text": "请先输入一段文字。",
    "no_query": "请输入要找的内容，或选择一幅图片。",
    "no_phrases": "请至少输入一条短语。",
    "text_too_long": "一段文字最多 {most:,} 个字符。",
    "too_many_phrases": "一次最多 {most} 条短语，这里有 {count} 条。",
    "no_box": "请先在图片上画一个框。",
    "too_many_boxes": "一次最多 {most} 个框，这里有 {count} 个。",
    "unusable_box": "有一个框在图片之外或没有面积，请重画。",
    "no_index": "还没有索引，请先建立。",
    "locked_index": "索引正在被写入，可能是在另一个窗口中。请稍后再试。",
    "unusable_index": "索引与这个检查点不符，或已损坏：{reason}",
    "unusable": "无法使用：{reason}",
}

TEXTS: Mapping[Language, Mapping[str, str]] = {"en": ENGLISH, "zh": CHINESE}
