"""The recipe of the shipped weights: rendered people -> judge, perceptual, audio, irfd, syncnet, speak; one command.

    python examples/default_weights.py --out runs/default --sizes 64,128 --ship    # two cores
    python examples/default_weights.py --out runs/default --sizes 64,128,256 --ship    # a GPU
    python examples/default_weights.py --out runs/tiny --preset tiny --sizes 64 --ship    # a small trial

Interrupted, the same command goes on where it stopped. A size begins with the weights of the size before; the first
size begins with --init FOLDER where one is given: RUN/SIZE of an earlier run, or the weights of the package
(speak/weights: judge, speak, and irfd as far as speak has it). --scale makes all stages shorter or longer.

What was learnt on the way (preset tiny, 64x64, 2026-11):
- A ResNet looks at every fourth pixel: at 64x64 it hardly sees a mouth. Judge, perceptual net, SyncNet and E_e read the
  same frames at 128. With that, 4 uses of each picture instead of 16 (which a judge learns by heart), and heavier mouth
  and emotion losses the judge went from 4.4 % / 2.9 degrees / emotion at chance / mouth .60 to 3.2 % / 1.9 degrees /
  69 % / .90 in 9,000 steps (25 minutes of one core). Pictures rendered at 128, half the augmentation and a second look
  near the landmarks first read took it to 2.1 % / 1.3 degrees / 89 % / .96 in 17,000 more, at 64 nearly as well. Six
  uses of a picture it learnt by heart (landmark loss .13, of new pictures .14); 8,500 steps with two uses
  took it to 1.9 % / 1.2 degrees / 91 % / .97.
- Pixels and features do not make mouths move: after 5,300 steps of `speak` the mouth followed the speech at r = .05.
  With what the perceptual net reads from the frames as a loss it was .59 after 520 steps. Emotions likewise.
- What the perceptual net says of blurs only misleads irfd: with its two terms from the start the pixel loss was .63
  after 1,000 steps, without them .50 after 700 and .43 after 3,600, where faces are there. They join in half-way
  (irfd.perceptual_from).
- After a short irfd (1,250 steps, blurs) 710 steps of `speak` gave coloured masks, not faces. After a long one the same
  losses (GAN .01, sync .2) kept the faces: it was the irfd. With GAN .1 D wins within 500 steps (its loss .13).
- Eq. 11 alone stays where all distances are .75 (contrastive .188). Having to find its own speech in the batch, and
  a video net that begins as the perceptual net, SyncNet leaves that point within 300 steps.
- Equations 1, 3 and 4 from the start cost a quarter of the step and slow the pictures down; they join in half-way
  (irfd.code_losses_from). Encoders that begin as the perceptual net, one layer in the mlp before G_d and 8 pairs a step
  instead of 16 reached after 725 steps (3 minutes of one core) the loss that took 2,000 steps before.
- StyleGAN2's equalised weights want larger steps than ResNets. G_d alone with free styles rebuilds 16 pictures at
  25.7 dB after 500 steps of 2e-3 and at 29.4 dB of 2e-2. With encoders in front five times their rate is better at
  first (self .551 instead of .566 after 300 steps from scratch), but late in a training its noise costs more than it
  brings (.45 instead of .42): twice it is.
- What kept pictures blurred was tried with E_i, E_p, E_e and G_d alone, from the perceptual net's trunks, pixels their
  only loss, on 1,800 people, minutes of one core (beside other work); decibels on others. Adam 18.8 (1,076
  steps in five minutes), half the batch 18.3 (1,338 in four). Muon 19.4 (566 in four), with steps twice as large 19.5
  (503 in three): so it stayed. A generator of twice the channels: as good a step, but half as many. Coordinates that
  the style moves, added at every level: 18.0. Codes f_I of zero mean over the batch: 18.6 instead of 19.5. A thumbnail
  of 8x8 beside E_i's ResNet: 20.5. Hair and clothes had had wrong colours: group norm, pooling and the perceptual
  net's indifference to light leave little of them (model.identity.thumbnail).
- In `speak` encoders that learn on (speak.train_encoders) make better pictures (23.4 -> 24.5 dB) and forget emotions
  (of 24 clips 75 % read right -> 54 %). E_e put back as it was and 750 steps with frozen encoders and the emotion
  thrice as heavy did not mend it. Nor did 5,500 steps that read the person from another emotion and the emotion from
  another person (48 % of 64 clips). A linear probe reads the emotion from that E_e at 76 % (82 % before): some of it is
  forgotten, as nothing in `speak` asks for it as C_m does in `irfd`; more is lost in G_g.
- It is softness. Of 192 windows of unseen people the first shipped model's emotion is read right by the perceptual net
  in 66 % (69 % of true frames), by the judge in 47 % (87 %). So that no pattern could please the one net alone, frames
  were moved, turned, lit and made noisy a little before it looks, E_e had to read them as well (Eq. 4 at .2), the
  perceptual net was trained on (3,800 steps, other frames: emotion 70 -> 81 %) and its emotion counted twice: after
  2,000 steps 71 and 47 %, after 2,850 (the rate, half of the usual, falling from the beginning; E_i learning, with a
  thumbnail) on 64 clips SSIM .743, 22.9 dB and emotion 55 %: worse than before in all but the mouth (M-LMD 2.34). The
  first two are gone again. But true frames blurred by 1.4 pixels (26 dB) are read right by the judge in 55 % and by the
  perceptual nets in 56 to 61 %, by 1.8 pixels (25 dB) in 35 and 47 to 49 %.
- And it is the mouth. Of the same 192 windows, 1,000 steps into the training below, the judge reads 40 % right; with
  the true mouth pasted in 80 %, with true eyes and brows 48 %; of true frames with the generated mouth 53 %, with
  generated eyes 82 %. L_vgg gave a mouth some 2 % of its weight, `pixel` 11 %: hence speak.mouth and
  speak.face_features. In the 500 steps after they came, `reading` fell from .97 to .65 at the same weight.
- D makes the pictures sharp. From the shipped weights 3,700 steps (67 minutes; rate 3e-4, from step 1,805 on 5e-4,
  E_i learning; D of width 32, its rate 1e-3, R1 at .3; GAN .05, from 580 on .2, reading .1; from 1,140 on face=20,
  mouth=4, face_features, pixel 8, perceptual 4) took what a 3x3 mean takes away from .0165 to .0342 (true frames
  .0370), and hair, clothes and outlines look right for the first time. But on 64 clips SSIM .728, 22.6 dB, F-LMD 3.02,
  M-LMD 2.39, CSIM .870, emotion 58 % (of the windows 52 instead of 47): none better than the shipped weights', so not
  shipped. After step 1,800 D won (its loss .75 -> .32, G's 2.5 -> 3.9) and the mouth was unlearnt (reading .65 -> 1.2):
  GAN .2 is too much.
- What mended it (the weights now shipped; all of it together, nothing was switched off alone). Trainings that go on
  with --init and the same --data synthetic:SEED see the same people again: after four of them the loss on these was
  .105 (pixel), .31 (reading), on new people .145 and 1.1. Another seed for each (the recipe does so by itself),
  `rendered.uses` 10 instead of 16. G_g had 16 channels at 64x64 and 32 at 32x32; twice as many (a wider generator
  begins with the pictures of the narrower) and the weights above, D left out, took `pixel` from .141 to .127 within 300
  steps (of people seen before), and the emotion of windows from 52 to 59 % within 1,000. Emotions were too weak: codes
  of the first weights 1.6 times as far from neutral were read right in 59 % instead of 47. A code of one frame is noisy
  and G_g learns to make less of it, hence rendered.emotion_frames=3; what was left (62 %, with 1.3: 68 %) is
  --emotion-gain 1.3. It was chosen by a perceptual net that was not trained with, on people of another seed: 67 % as
  trained, 74 % from 1.3 on.
- D again, and its features matched (speak.weight_feature_matching, 1 and later 3, GAN .05): sharp without unlearning
  the mouth. E_p that learns on at 128x128 (begun from the perceptual net, fitted to the mapper's codes) was tried too:
  poses read from its codes got worse (yaw 2.1 degrees instead of 1.5) and the pictures no better.
- It was E_i that held the pictures back. With f_I free (250 steps of Adam on the very frames) G_g rebuilds 32 unseen
  people at 26.4 dB instead of 22.4, with all codes free at 26.5. Fitted to the photo alone, other frames of the person
  went from 22.5 to 23.3 dB after 5 steps and to 24.0 after 60. Hence speak/models/inversion.py. Steps of equal length
  down the gradient: Adam's first ones are long in every direction (3 of them: 19.9 dB). More than 8 cost the mouth (r
  .71 -> .67 at 20). Whether the photo's mouth or emotion are moved as well makes no difference. The absolute error, or
  that of blurred pictures, brought .3 dB less at 20 steps, without the middle of the face 1 dB less.
- E_i was starved: a ResNet of 16 channels that saw 64x64 pictures at 2x2 and averaged that. Begun anew, 32 wide, at
  128x128, its last 4x4 kept apart (model.identity.grid), and taught to read codes fitted to frames of 4,032 people
  (examples/identity_encoder.py: 15 minutes of two cores for the codes, 11 for 1,430 steps), the error of its codes of
  new people went from .0117 to .0068 (weighed as what they change in pictures), the pictures of 96 windows from 22.6 to
  23.35 dB (with f_I fitted by 8 steps from 24.0 to 24.1). Five minutes of one core were enough to be better than after
  all of stage `speak` (.0075; at 64x64, a grid of 2x2), whose 16 photos a step are few. Learnt by heart: .0046.
- E_i again, for the G_g that had moved (not shipped yet): 6,528 windows, of 4,544 of which only
  the codes were fitted anew (to the frames kept, the mouth free: 2 seconds of a core for 16 windows instead of 7.5),
  begun from what it was, 12 minutes of two cores: error of new people .0144 -> .0090 (.0049 of those seen: by heart
  again), 64 windows unfitted 22.4 -> 23.3 dB, fitted by 8 steps 24.2 -> 24.3, the person's likeness .903 -> .895.
  Then 720 steps with D (GAN .025, R1 1) and the half-way mix, on 64 clips beside what ships: SSIM .794 (.787), 24.64 dB
  (24.47), F-LMD 2.70 (2.74), M-LMD 2.17 (2.20), CSIM .904 (.906), emotion 75 % (78); 15 real photos SSIM .40 (.39).
  Side by side nobody sees it: not shipped, the beginning of what comes next.
- How far codes can go (16 people, 5 frames of a window, Adam on three of them): f_I free 26.4 dB after 100 steps and
  26.8 after 300, with a style of each person's own added 26.6 and 27.1, with one a level 27.3 (100). Beyond is G_g's.
- Fitting f_I along the gradient times the inverse of the mean J^T J (.3 of its mean diagonal added) takes three steps
  for what eight bring now (24.3 dB), and in eight comes to 24.6, but the mouth falls from r .77 to .64. With E_i's own
  errors as the prior: 24.1 to 24.4 dB, the mouth as it was. Not built in.
- So the photo itself goes into the frames (speak/models/photo_warp.py): bent to G_g's picture, blended with it. 0.29 M
  weights, taught alone on the pictures of a G_g that stays as it is, 2,032 windows rendered once, 24 frames a step,
  half a second each: of 256 windows 23.4 dB without, 24.5 after 200 steps (Adam, 2e-3), 25.0 after 700, 25.7 after 800
  more with Muon (1.5e-3; there it stayed while the loss on the windows seen went on falling), SSIM .764 -> .863. Hair,
  glasses, eyes' colours, clothes are the person's for the first time. Until the bent photo alone was compared with the
  truth as well (speak.weight_bent) the flow hardly learnt, where little is taken of the photo.
- Real photos: heads, hair and clothes are the person's at once, eyes and mouths are doubled: those of G_g lie
  elsewhere. Half of it is the crop: the crop rule's faces are 1.2 to 1.4 times as large in the frame as rendered ones
  (brow to chin .50 instead of .42 of its side). Hence prepare.grow=0.25, kept with the weights. And strangers
  (speak.strangers): photo and truth in other colours and proportions than E_i has seen, G_g's picture bent as well.
- Strangers teach G_g nonsense: 778 steps of both together (GAN .025, strangers .3) gave cyan teeth and blue hair in its
  own picture (23.1 -> 21.9 dB) and frames worse than with a G_g that had been left alone (24.2 instead of 25.0 dB, 12
  windows). Now it gets no gradient from them.
- Taught without strangers the net kept the photo's mouth (exchanged audio .70, the replaced one .18, before .81 and
  .09); with them rendered people's faces went soft (25.8 instead of 26.5 dB). Since it also sees what G_g makes of the
  photo (Portrait), strangers come out nearly as well as people whom G_g knows (25.0 and 25.5 dB of 256 windows after
  1,900 steps), and with the perceptual net's reading in the loss (.12) exchanged audio is at .80 and .12, pose at 1.45
  degrees, emotion at 90 %: what G_g shows arrives. Muon at 1.5e-3 only shook what was learnt; 6e-4 went on.
- Real photos in the example's pose had G_g's eyes on their cheeks: a real face's eyes lie higher in the crop than a
  rendered one's, which E_p reads as a pitch of -20 to -30 degrees. Motion about the photo's pose (--pose-mode relative)
  brought more than any training. Place and size alone did not (with the pose mapper inverted by Gauss-Newton, which is
  good to 1.2, 1.3 and .7 degrees and .006 of the width on rendered people).
- Then 850 steps of G_g and that net together, strangers at .2, GAN at .025: no more decibels (26.0 of 96 windows before
  and after), but sharper (a 3x3 mean takes away .026 instead of .024; of true frames .036), the emotion 78 instead of
  71 %, identity .964 instead of .951; more of the face is the photo's. G_g's own pictures got worse (23.1 -> 22.2 dB):
  what they look like hardly matters any more where the photo is taken (speak.weight_unaided was 1). Half-way between
  before and after is better than both: 26.3 dB, SSIM .871, mouth r .78 (.73 and .72), emotion 80 %.
- Figurines alone teach encoders little of other faces. Given people with the proportions of adults (rendered.lifelike)
  the E_p of the shipped weights errs 2.6 times as much, their E_e by half of its codes' variance, the judge misreads
  landmarks by 4.6 pixels of 256 instead of 2.3 and the pitch by -3.3 degrees. Ten minutes of E_p and E_e by themselves
  (examples/pose_emotion_encoders.py is that script, tidied) brought E_p's error on adults from .146 of the variance to
  .037 (figurines .040 to .035), E_e's from .48 to .16; 1,500 steps of the judge on both kinds its error on adults from
  4.6 to 2.6 % of the jaw's width (figurines 2.0 to 2.2 %). Not shipped yet: see speak/weights/README.md.
- Figurines show whole rows of teeth while they speak, adults a few millimetres. Mouths of real photos, grey before,
  stayed grey after 1,350 steps with adults' mouths. Taken apart, the grey is in G_g's own picture, also where the
  photo's lips are shut: a bar of teeth, at 64x64 bluish white beside the skin, while real mouths are brown and red
  there. Adults' teeth were made warm and shaded then: 3,200 steps later, five to seven in ten of them adults, real
  people's mouths were darker, but bluish; after 500 more on adults alone (rendered.lifelike=1) most had the right
  colour (the mean of twelve off by 8.9 of 255, before 10.3, the shipped ones' 14.0): figurines' white teeth, it seems.
- Why the bar is there at shut lips: E_e, as it was taught adults, takes many real faces for disgusted ones, whose upper
  lip is raised. (A ridge from f_E to the emotions of rendered people says `disgusted` first of 13 of 31 real clips,
  whatever is felt, but of 4 with the shipped E_e, which says contempt of 9 instead; of eleven clips of MEAD it names
  1 and 2 rightly.) Blurring places of real pictures says what it goes by: brows and eyes; the mouth speaks against it.
  Rendered adults had their brows 23 mm above the pupils, white eyes and light sockets. With 18 mm, shaded eyes, faces
  that differ at rest and pictures shaded in places it is 12 of 31, and 3 of MEAD's eleven: little better.
- Going on with adults alone real mouths came out in the right colours (2,200 steps: off by 9.1 of 255), but the
  bending net took more of G_g's face (thirteen real clips' faces SSIM .551; .577 ships). G_g and the bending net can be
  mixed apart: .9 of the one and .5 of the other, the rest of what ships, kept both (.578, 9.0). To the eye it is still
  no better than what ships.
- Faces fill real crops more than rendered pictures. E_p reads that as a nod of up to 28 degrees, and G_g paints mouths
  2.9 of 64 pixels away, most too high. With a quarter of the side added around eleven such photos (edges repeated)
  they are .04 of the jaw's width away instead of .12, the mean pitch is -5 instead of -15. What frames then show in
  the right place is soft and grey still. An E_p that was taught faces up to 1.55 times as large reads those of the
  photos as 1.30 times as large as usual. So all networks learnt people from as near (rendered.nearest=1.55, adults, D;
  3,400 steps of two runs averaged): mouths made of ten real people follow the vowels at r = .53 instead of
  .30, no longer too high on average, but where they move grey: contrast inside lips 21 of the true 36, of rendered
  adults 25 of 34. It seems to be f_I: a real photo's is a blur in G_g. With f_I of the one of 320 rendered adults whose
  picture is nearest, lips, teeth and gaps are told apart better.
- It was the blend. Looked at apart, the bent photo is good and G_g's picture somebody else's, and of real faces the
  photo's share is about a half on eyes, nose and mouth. Its logit times 2 plus 1.5 (--photo-firmness, --photo-trust),
  and .7 of those weights with .3 of those before: a blind helper preferred thirteen real clips in twelve. It costs
  figurines .05 of the mouth's r and .1 dB.
- A third of the squared error lies in eyes and brows: nothing told G_g of blinks and gaze. Poses now come with them,
  and examples/eye_reader.py teaches E_p to read them (gaze at r .83 to .91 from a look from nearby; from the whole
  picture at 128x128 none). 1,100 steps were not enough for G_g to use them.
- D once more unlearnt the mouth of figurines (r .76 -> .71 in 2,900 steps), and 1,100 steps without D on half figurines
  seen from near brought nothing (26.4 -> 26.1 dB, with what eyes do in f_P for the first time).
- E_a was starved too: with 0.02 M weights ("tiny" of WAV2VEC2_PRESETS) a linear probe read the mouth's opening from it
  at r = .80, a small net at .82, its width and rounding at .35: G_g could not know better. With 0.44 M and
  Muon stage `audio` names 92 % of the phones after 1,900 steps (17 minutes of two cores) and the opening at r = .951.
  (Phone loss 2.2 after 150 steps; with Adam and 64 channels in all convolutions 3.4 after 107.) It went into the
  trained weights with the first editing layer rewritten by least squares (R2 .61 of what that layer had read).
- Nothing of the mouth reached the levels that draw it. Each editing block read the block before it alone: within
  clips a linear probe finds the mouth's opening in f_a at r = .94, in the edited vectors of levels 1 to 4 at .87,
  .68, .58 and .42, from the fifth on at .1 or less. (f_a put 1.2 to 2 times as far from silence changes little: AdaIN
  takes the length out.) Since every block reads (f_a, f_E) again (model.editing.repeat_input, its new columns 0 at
  first) 1,200 steps without D (1e-3, 23 minutes) took the opening of 32 unseen clips from r = .735 to .759 (within
  clips .73 to .78; emotions 1.3 times in all of these), the shape of the mouth from 2.26 to 2.10 pixels of 256, at
  26.0 dB before and after. Then 2,000 with a new D (GAN .025, R1 .3): sharper, r = .752, 25.7 dB; 900 more, the rate
  raised again to a third: .719, 25.8 dB. Half-way between before D and after all .774, 2.02 pixels and 26.1 dB, on 64
  clips as good as half-way to step 2,000.
- With this E_i held still G_g moved away from what it reads: after 750 steps 22.2 dB instead of 23.3 without the steps
  that fit f_I, with them 24.3 instead of 24.1 (64 windows); 850 steps with E_i learning did not win it back (22.2).
- D once more: R1 at 2 made it lose (its loss .12 -> .5) and G_g's pictures sharper than true ones (a 3x3 mean takes
  away .038) at 23.6 dB and SSIM .754. Half-way between the weights before and after those 850 steps: .029, 24.2 dB,
  .781, and the emotion as good; closer to the latter hair looks crisper still. Weights of one training can be mixed
  like that.
- In training (speak.inversion_steps) only every second window is fitted: where all were, E_i came to rely on it (17.9
  dB without, 22.4 with two steps, after 500).
- 128x128 was begun (from the shipped weights, model.image_size=128, channel_base=4096, no D): 1.9 s a step, of which
  G_g takes .7; after 520 steps 23.4 dB and SSIM .76 but soft (a 3x3 mean takes away .0085, of true frames .023).
- 128x128 with D from the beginning, E_i learning (2.3 s a step on two cores; both scales of D began as the one that
  had seen 64x64; GAN .05, features at 3): with R1 at 1 D's loss was .02 after 50 steps. With R1 at 8 it came to .9
  within 450 and outlines became coloured: of 64 windows 23.4 dB and SSIM .76 (64x64 enlarged), 23.3 and .75 (after 465
  steps), 22.6 and .72 (after 715), what a 3x3 mean takes away .010, .011, .012 (of true frames .023). So stopped.
- The thumbnail brought the pose into f_I (R2 .46 for a linear probe); taking its linear trace out at the end of irfd
  cost .1 dB there, and .5 dB of a finished `speak`, which has to learn with it.
- 24 clips do not measure an emotion accuracy: the first shipped weights had 75 % on 24 and 59 % on 64.
- Gradient-reversed probes have to be asked for what the pictures show that encoders have read, which are not S and T.
  Even so, at weight .1, pose read from f_I and f_E stayed (R2 .26 and .22).
- Two processes with two threads each on two cores slow each other down tenfold: give each one thread and a core.
  A training that is stopped and goes on renders its stock anew first: minutes (`rendered.kept` makes it smaller).
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from torch import Tensor

from speak import checkpoint
from speak.config import EMOTIONS, PRESETS, preset
from speak.datasets.rendered import synthetic_seed
from speak.models.codes import CodeNorm
from speak.shipped import save_for_shipping

STAGES = ("judge", "perceptual", "audio", "irfd", "syncnet", "speak")
# Beside the preset's: `irfd` alone must run without the perceptual net, here there is one.
SETTINGS = {"irfd": ("irfd.weight_reading=0.3", "irfd.weight_perceptual=0.3")}
# From the second size on: there are pictures from the first step. `speak` has the losses of the shipped weights' end.
GOING_ON = {
    "irfd": ("irfd.perceptual_from=0", "irfd.code_losses_from=0"),
    "speak": ("speak.face=20", "speak.mouth=4", "speak.face_features=true", "speak.weight_pixel=8",
              "speak.weight_perceptual=4", "speak.weight_reading=0.3", "speak.weight_adversarial=0.05",
              "speak.weight_feature_matching=3", "speak.weight_sync=0", "speak.discriminator_r1=0.3"),
}  # fmt: skip
FARTHER = "prepare.grow=0.25"  # of a face's box about a photo: rendered people are seen from farther than a corpus' are
ADULTS = "rendered.lifelike=0.5"  # encoders that only know figurines misread a real face
SHIPPED = ("speak", "judge", "syncnet", "perceptual")
WEIGHTS = "weights.pt"
SHARE = 4  # the photo's, among what the last layer of `PhotoWarp` says


def commands(
    out: Path, name: str, sizes: list[int], scale: float, data: str, init: Path | None, settings: list[str]
) -> list[list[str]]:
    """The trainings, in order."""
    config = preset(name)
    found = []
    for number, size in enumerate(sizes):
        before = out / str(sizes[number - 1]) if number else init
        for stage in STAGES:
            words = [sys.executable, "-m", "speak", "train", "--stage", stage, "--preset", name,
                     "--data", other_people(data, number),
                     "--out", str(out / str(size)), "--steps", str(max(1, round(scale * getattr(config, stage).steps))),
                     "--set", f"model.image_size={size}"]  # fmt: skip
            if synthetic_seed(data) is not None:
                words += ["--set", FARTHER, "--set", ADULTS]
            start = begin_with(stage, before, number > 0)
            if start is not None:
                words += ["--init", str(start)]
            goes_on = GOING_ON.get(stage, ()) if number else ()
            for setting in (*SETTINGS.get(stage, ()), *goes_on, *settings):
                words += ["--set", setting]
            found.append(words)
    return found


def other_people(data: str, number: int) -> str:
    """Rendered people of another seed for every size: of the same one they would be those it has learnt by heart."""
    seed = synthetic_seed(data)
    return data if seed is None else f"synthetic:{seed + number}"


def begin_with(stage: str, folder: Path | None, coming: bool) -> Path | None:
    """The weights that a stage begins with. coming: the folder is a run's that has not been trained yet."""
    if folder is None:
        return None
    candidates = [folder / stage / WEIGHTS, folder / f"{stage}.pt"]
    if stage == "irfd":
        candidates += [folder / "speak" / WEIGHTS, folder / "speak.pt"]
    return candidates[0] if coming else next((file for file in candidates if file.is_file()), None)


def exaggerate(
    speak: dict[str, Tensor],  # the state of `Speak`, changed in place
    gain: float,  # over 0; 1 changes nothing
) -> None:
    """Puts f_E of every face and the emotions' prototypes `gain` times as far from the neutral face as they are.

    Codes are noisy, so that G_g learns to make less of an emotion than the video shows.
    """
    prototypes, norm, eps = speak["emotion_prototypes.codes"], "emotion_encoder.norm.running_", CodeNorm(1).eps
    neutral = prototypes[EMOTIONS.index("neutral")][0].clone()
    spread = (speak[f"{norm}var"] + eps).sqrt()
    speak[f"{norm}mean"] = speak[f"{norm}mean"] - (1 - gain) * neutral * spread / gain
    speak[f"{norm}var"] = (spread / gain).square() - eps
    speak["emotion_prototypes.codes"] = neutral + gain * (prototypes - neutral)


def trust_photo(
    speak: dict[str, Tensor],  # the state of `Speak`, changed in place
    firmness: float,  # over 0; 1 with a trust of 0 changes nothing
    trust: float,  # above 0 for the photo, below for G_g
) -> None:
    """Makes the choice between the bent photo and G_g's picture firmer: the logit of the photo's share times
    `firmness` plus `trust`.

    Of rendered people it is learnt well; of real ones the net is unsure, and a mixture of two faces is a smear.
    """
    weight, bias = (speak[f"photo_warp.last.{name}"] for name in ("weight", "bias"))
    weight[SHARE] *= firmness
    bias[SHARE] = firmness * bias[SHARE] + trust


def ship(run: Path, folder: Path | None, gain: float = 1.0, firmness: float = 1.0, trust: float = 0.0) -> None:
    """Writes what ships of a run folder, in float16. gain: see `exaggerate`; firmness, trust: see `trust_photo`."""
    for name in SHIPPED:
        content = checkpoint.load(run / name / WEIGHTS)
        if name == "speak":
            exaggerate(content["models"]["speak"], gain)
            if (firmness, trust) != (1, 0):
                trust_photo(content["models"]["speak"], firmness, trust)
        for file in save_for_shipping(name, content, folder):
            print(f"{file}: {file.stat().st_size / 2**20:.1f} MiB")


def main(arguments: list[str] | None = None) -> int:
    """Runs the recipe; the exit status of the first training that fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/default"))
    parser.add_argument("--preset", default="default", choices=list(PRESETS))
    parser.add_argument("--sizes", default="64", help="pictures' sizes one after the other (default 64)")
    parser.add_argument("--scale", type=float, default=1.0, help="of all stages' steps")
    parser.add_argument("--data", default="synthetic", help="synthetic[:SEED]")
    parser.add_argument("--init", type=Path, help="run folder of one size, or folder of shipped weights, to begin with")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="key=value")
    parser.add_argument("--ship", action="store_true", help="write what ships for the package at the end")
    parser.add_argument("--emotion-gain", type=float, default=1.0, help="makes the emotions of what ships stronger")
    parser.add_argument("--photo-firmness", type=float, default=1.0, help="makes a choice of the photo's share")
    parser.add_argument("--photo-trust", type=float, default=0.0, help="and larger")
    parser.add_argument("--folder", type=Path, help="where they go (default: the package's own weights)")
    given = parser.parse_args(arguments)
    for name in ("emotion_gain", "photo_firmness"):
        if getattr(given, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} {getattr(given, name):g}: give a number over 0")
    sizes = [int(size) for size in given.sizes.split(",")]
    for words in commands(given.out, given.preset, sizes, given.scale, given.data, given.init, given.settings):
        print(shlex.join(words[1:]), flush=True)
        status = subprocess.run(words).returncode
        if status:
            return status
    if given.ship:
        ship(given.out / str(sizes[-1]), given.folder, given.emotion_gain, given.photo_firmness, given.photo_trust)
    return 0


if __name__ == "__main__":
    sys.exit(main())
